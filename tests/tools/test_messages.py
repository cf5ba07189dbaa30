"""The command lines answer what a user can put right with one message and exit code 2."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from attnpool_backbones.command_line import run_command
from attnpool_backbones.config_files import config_root

for library in ('mmdet', 'mmseg'):
    pytest.importorskip(library)

DETECTION = 'configs/patchconvnet/mask-rcnn_patchconvnet-s60_fpn_ms-3x_coco.py'
SEGMENTATION = 'configs/patchconvnet/upernet_patchconvnet-s60_8xb2-160k_ade20k-512x512.py'
DIGITS = 'configs/patchconvnet/mask-rcnn_patchconvnet-nano_slim-fpn_digit-scenes.py'

# a config that needs no data until it runs
BARE = """default_scope = 'mmdet'
model = dict(type='MaskRCNN')
train_dataloader = dict(dataset=dict(type='CocoDataset'))
train_cfg = dict(by_epoch=True, max_epochs=1)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))
test_dataloader = dict(dataset=dict(type='CocoDataset'))
test_cfg = dict()
test_evaluator = dict(type='CocoMetric')
visualizer = dict(type='DetLocalVisualizer')
default_hooks = dict()
"""


FAULTY = {
    'README.md': '# Title',
    'none.py': "default_scope = 'mmdet'",
    'name_error.py': 'model = missing',
    'fails.py': 'a = 1 / 0',
    'no_package.py': "_base_ = 'mmdett::a.py'",
    'own_package.py': "_base_ = ['attnpool_backbones::a.py']",
    'custom_import.py': "custom_imports = dict(imports=['no_such_module'])",
}


class Malicious:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple:
        return os.system, ('touch new',)


def prepare(folder: Path) -> None:
    """Makes the files that the cases name."""
    (folder / 'here.pth').touch()
    (folder / 'bare.py').write_text(BARE)
    (folder / 'text.pth').write_text('Not Found')
    for name, content in FAULTY.items():
        (folder / name).write_text(content)
    torch.save(dict(state_dict=dict(a=torch.zeros(9))), folder / 'whole.pth')
    torch.save([1, 2], folder / 'list.pth')
    torch.save(dict(state_dict=dict(a=torch.zeros(99)), meta=Malicious()), folder / 'evil.pth')
    torch.save(dict(state_dict=dict(a=torch.zeros(99))), folder / 'cut.pth')
    os.truncate(folder / 'cut.pth', 600)
    (folder / 'folder.pkl').mkdir()
    (folder / 'run').mkdir()
    (folder / 'run' / 'epoch_7.pth').touch()


# tool, arguments with {root} for the clone, what the message says
CASES = {
    'no_config': ('train', ['configs/nothing.py'], ['config not found', 'configs/nothing.py']),
    'typing_error': (
        'train',
        ['{root}/' + DETECTION.replace('_ms-3x', '_3x')],
        ['Did you mean', Path(DETECTION).name],
    ),
    'no_coco': (
        'train',
        ['{root}/' + DETECTION],
        [
            'data/coco/annotations/instances_train2017.json',
            'data/coco/val2017',
            'https://cocodataset.org',
        ],
    ),
    'no_ade': (
        'train',
        ['{root}/' + SEGMENTATION],
        ['data/ade/ADEChallengeData2016/images/training', 'http://sceneparsing'],
    ),
    'no_scenes': ('train', ['{root}/' + DIGITS], ['data/digit_scenes', 'make_digit_scenes.py']),
    'no_resumed_checkpoint': (
        'train',
        ['{root}/' + DETECTION, '--resume', 'old/epoch_1.pth'],
        ['checkpoint not found', 'old/epoch_1.pth'],
    ),
    'no_pretrained': (
        'train',
        [
            '{root}/' + DETECTION,
            '--cfg-options',
            'model.backbone.init_cfg.checkpoint=weights/s60.pth',
        ],
        ['init_cfg', 'weights/s60.pth', 'data/coco'],
    ),
    'option_without_value': (
        'train',
        ['{root}/' + DETECTION, '--cfg-options', 'optimizer'],
        ["'optimizer' is not of the form key=value"],
    ),
    'option_with_a_call': (
        'train',
        ['{root}/' + DETECTION, '--cfg-options', 'model.backbone=dict(type=A,arch=0)'],
        ['model.backbone=dict(type=A,arch=0)', 'set the entries of a dict one by one'],
    ),
    'option_with_a_call_in_a_list': (
        'train',
        ['{root}/' + DETECTION, '--cfg-options', "custom_hooks=[dict(type='EMAHook')]"],
        ['custom_hooks', 'set the entries of a dict one by one'],
    ),
    'option_with_a_dict_in_a_list': (
        'train',
        ['{root}/' + DETECTION, '--cfg-options', 'custom_hooks=[1, {{"type": "EMAHook"}}]'],
        ['custom_hooks', 'set the entries of a dict one by one'],
    ),
    'option_with_a_quoted_dict': (
        'train',
        ['{root}/' + DETECTION, '--cfg-options', 'model="{{type:A}}"'],
        ['model', 'set the entries of a dict one by one'],
    ),
    'option_with_spaces_in_a_list': (
        'train',
        ['{root}/' + DETECTION, '--cfg-options', 'a=[/tmp/my data, b]'],
        ['/tmp/my data', 'spaces inside of an entry of a list would be lost'],
    ),
    'option_without_key': (
        'test',
        ['{root}/' + DETECTION, 'a.pth', '--cfg-options', 'a..b=1'],
        ["'a..b=1' is not of the form key=value"],
    ),
    'no_checkpoint': (
        'test',
        ['{root}/' + DETECTION, 'work_dirs/run/epoch_36.pth'],
        ['checkpoint not found', 'work_dirs/run/epoch_36.pth'],
    ),
    'test_without_data': (
        'test',
        ['{root}/' + SEGMENTATION, 'here.pth'],
        ['ADEChallengeData2016/images/validation'],
    ),
    'empty_checkpoint': (
        'test',
        ['bare.py', 'here.pth'],
        ['here.pth could not be read as a checkpoint'],
    ),
    'text_checkpoint': ('test', ['bare.py', 'text.pth'], ['text.pth is no checkpoint']),
    'list_checkpoint': (
        'test',
        ['bare.py', 'list.pth'],
        ['no state dict in list.pth, which holds list'],
    ),
    'malicious_checkpoint': (
        'test',
        ['bare.py', 'evil.pth'],
        ['evil.pth was not loaded', 'system'],
    ),
    'truncated_checkpoint': (
        'test',
        ['bare.py', 'cut.pth'],
        ['cut.pth could not be read as a checkpoint'],
    ),
    'truncated_load_from': (
        'train',
        ['bare.py', '--cfg-options', 'load_from=cut.pth'],
        ['cut.pth could not be read as a checkpoint'],
    ),
    'no_load_from': (
        'train',
        ['bare.py', '--cfg-options', 'load_from=none.pth'],
        ['load_from', 'none.pth'],
    ),
    'folder_for_a_checkpoint': (
        'test',
        ['bare.py', 'run'],
        ['run is a folder', 'has: epoch_7.pth'],
    ),
    'folder_to_resume': (
        'train',
        ['bare.py', '--resume', 'run'],
        ['run is a folder', 'has: epoch_7.pth'],
    ),
    'out_to_nowhere': (
        'test',
        ['bare.py', 'whole.pth', '--out', '/proc/nope/x.pkl'],
        ['--out /proc/nope: cannot be written to'],
    ),
    'out_to_a_folder': (
        'test',
        ['bare.py', 'whole.pth', '--out', 'folder.pkl'],
        ['--out folder.pkl: is a folder'],
    ),
    'show_dir_is_a_file': (
        'test',
        ['bare.py', 'whole.pth', '--show-dir', 'bare.py'],
        ['--show-dir', 'bare.py: is a file'],
    ),
    'show_dir_nowhere': (
        'test',
        ['bare.py', 'whole.pth', '--show-dir', '/proc/nope'],
        ['--show-dir /proc/nope: cannot be written to'],
    ),
    'work_dir_nowhere': (
        'train',
        ['bare.py', '--work-dir', '/proc/nope'],
        ['--work-dir /proc/nope: cannot be written to'],
    ),
    'work_dir_is_a_file': (
        'test',
        ['bare.py', 'whole.pth', '--work-dir', 'bare.py'],
        ['--work-dir bare.py: is a file'],
    ),
    'address_of_no_scheme': (
        'test',
        ['bare.py', 'foo://x/y.pth'],
        ['foo://x/y.pth could not be read', 'addresses begin with http://'],
    ),
    'malformed_address': (
        'test',
        ['bare.py', 'http://[a/x.pth'],
        ['http://[a/x.pth', 'no address'],
    ),
    'address_of_no_port': (
        'test',
        ['bare.py', 'http://127.0.0.1:99999999/x.pth'],
        ['127.0.0.1:99999999/x.pth could not be downloaded'],
    ),
    'address_to_write_to': (
        'train',
        ['bare.py', '--work-dir', 's3://bucket/run'],
        ['--work-dir s3://bucket/run: is an address'],
    ),
    'address_to_convert_to': (
        'model_converters/convert_checkpoint',
        ['whole.pth', 's3://bucket/x.pth'],
        ['s3://bucket/x.pth: is an address'],
    ),
    'home_of_nobody': ('test', ['bare.py', '~nobody_at_all/x.pth'], ['checkpoint not found']),
    'number_to_load': (
        'train',
        ['bare.py', '--cfg-options', 'load_from=99999999999999999999'],
        ['bare.py cannot be used', 'load_from has to be a text, not 99999999999999999999'],
    ),
    'name_that_is_too_long': ('train', ['a' * 300 + '.py'], ['File name too long']),
    'name_that_is_no_text': ('train', [os.fsdecode(b'\xff.py')], ['config not found']),
    'too_many_loading_processes': (
        'train',
        ['bare.py', '--workers', '9' * 20],
        ['--workers', 'no whole number from 0 to 1024'],
    ),
    'large_size': (
        'dataset_converters/make_digit_scenes',
        ['--size', '100000'],
        ['at most 8192, got 100000'],
    ),
    'many_scenes': (
        'dataset_converters/make_digit_scenes',
        ['--train', '9' * 20],
        ['train must be an integer from 1 to 1000000'],
    ),
    'large_size_to_measure': (
        'analysis_tools/benchmark',
        ['PatchConvNet:nano', '--size', '100000x100000'],
        ['100000x100000', 'pixels'],
    ),
    'rounds_without_number': (
        'analysis_tools/benchmark',
        ['PatchConvNet:nano', '--seconds', 'nan'],
        ["'nan' is no number of seconds"],
    ),
    'negative_seed': (
        'train',
        ['bare.py', '--seed', '-1'],
        ['--seed -1: has to be in 0..4294967295'],
    ),
    'number_for_a_loader': (
        'train',
        ['bare.py', '--cfg-options', 'train_dataloader=3'],
        ['bare.py cannot be used', 'train_dataloader has to be a dict, not 3'],
    ),
    'config_of_no_kind': (
        'train',
        ['README.md'],
        ['config README.md cannot be read', 'py/yml/yaml/json'],
    ),
    'config_with_a_name_error': (
        'train',
        ['name_error.py'],
        ['name_error.py cannot be read', "NameError: name 'missing' is not defined"],
    ),
    'config_that_fails': ('test', ['fails.py', 'whole.pth'], ['fails.py', 'ZeroDivisionError']),
    'base_of_no_package': (
        'train',
        ['no_package.py'],
        ['no_package.py cannot be read', 'mmdett::a.py', 'PACKAGE::PATH'],
    ),
    'base_of_this_package': (
        'train',
        ['own_package.py'],
        [
            'own_package.py cannot be read',
            'attnpool_backbones::a.py',
            'PACKAGE::PATH',
            f'those of attnpool_backbones are in {config_root()}',
        ],
    ),
    'custom_import': (
        'train',
        ['custom_import.py'],
        ['custom_import.py cannot be read', 'no_such_module'],
    ),
    'nothing_to_train': ('train', ['none.py'], ['none.py has no train_dataloader']),
    'nothing_to_test': ('test', ['none.py', 'whole.pth'], ['none.py has no test_dataloader']),
    'report_to_nowhere': (
        'misc/verify_dataset',
        ['bare.py', '--json', '/proc/nope/x'],
        ['--json /proc/nope: cannot be written to'],
    ),
    'nothing_to_verify': (
        'misc/verify_dataset',
        ['none.py'],
        ['none.py has no data set to check', 'train_dataloader'],
    ),
}


def load_main(tool: str, root: Path) -> object:
    spec = importlib.util.spec_from_file_location(
        f'tools_{Path(tool).name}', root / 'tools' / f'{tool}.py'
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.mark.parametrize('name', CASES)
def test_message(
    name: str,
    tmp_path: Path,
    repo_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    tool, arguments, parts = CASES[name]
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path)
    there = sorted(tmp_path.rglob('*'))
    arguments = [argument.format(root=repo_root) for argument in arguments]
    monkeypatch.setattr(sys, 'argv', [f'{tool}.py', *arguments])
    try:
        code = run_command(load_main(tool, repo_root))
    except SystemExit as stop:
        code = stop.code
    message = capsys.readouterr().err
    assert code == 2
    assert 'error: ' in message and 'Traceback' not in message
    for part in parts:
        assert part in message
    # a run that cannot start leaves nothing behind
    assert sorted(tmp_path.rglob('*')) == there


@pytest.mark.parametrize('hint', ['', 'go on with --resume auto'])
def test_interrupted(hint: str, capsys: pytest.CaptureFixture) -> None:
    def command() -> None:
        raise KeyboardInterrupt

    assert run_command(command, hint) == 130
    assert capsys.readouterr().err.strip() == (f'stopped: {hint}' if hint else 'stopped')


def run_tool(tool: str, arguments: list[str], cwd: Path, *paths: Path) -> str:
    """Runs a tool that has to end with a message, modules being looked for in ``paths``."""
    done = subprocess.run(
        [sys.executable, str(paths[-1] / 'tools' / tool), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        env=dict(os.environ, PYTHONPATH=':'.join(map(str, paths)), OMP_NUM_THREADS='1'),
    )
    assert done.returncode == 2
    assert 'Traceback' not in done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ('tool', 'arguments'), [('train.py', [DETECTION]), ('test.py', [SEGMENTATION, 'missing.pth'])]
)
def test_as_a_command(tool: str, arguments: list[str], tmp_path: Path, repo_root: Path) -> None:
    arguments = [str(repo_root / arguments[0]), *arguments[1:]]
    assert str(tmp_path) in run_tool(tool, arguments, tmp_path, repo_root)


@pytest.mark.parametrize(
    ('module', 'tool', 'cure'),
    [
        ('sklearn', 'quickstart.py', 'pip install scikit-learn'),
        ('sklearn', 'dataset_converters/make_digit_scenes.py', 'pip install scikit-learn'),
        ('matplotlib', 'analysis_tools/accuracy_benchmark.py', 'pip install matplotlib'),
        ('safetensors', 'train.py', 'pip install safetensors'),
    ],
)
def test_names_the_package_that_is_missing(
    module: str, tool: str, cure: str, tmp_path: Path, repo_root: Path
) -> None:
    absent = f"raise ModuleNotFoundError('No module named {module}', name='{module}')"
    (tmp_path / 'absent').mkdir()
    (tmp_path / 'absent' / f'{module}.py').write_text(absent)
    arguments = [str(repo_root / DIGITS)] if tool == 'train.py' else []
    assert cure in run_tool(tool, arguments, tmp_path, tmp_path / 'absent', repo_root)


# script -> its arguments before the number of GPUs
SCRIPTS = {
    'dist_train.sh': ['config.py'],
    'dist_test.sh': ['config.py', 'a.pth'],
    'slurm_train.sh': ['gpu', 'job', 'config.py'],
    'slurm_test.sh': ['gpu', 'job', 'config.py', 'a.pth'],
}


@pytest.mark.parametrize(
    'gpus', [None, 'xx', '', '0', '-1', '1.5', '08', '4x', 'a[$(touch new)]', '9' * 20]
)
@pytest.mark.parametrize('script', SCRIPTS)
def test_shell_scripts_tell_their_usage(
    script: str, gpus: str | None, tmp_path: Path, repo_root: Path
) -> None:
    arguments = SCRIPTS[script] + ([] if gpus is None else [gpus, '--amp'])
    done = subprocess.run(
        ['bash', str(repo_root / 'tools' / script), *arguments],
        cwd=tmp_path,
        env=dict(os.environ, PYTHON='echo'),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and 'usage:' in done.stderr and not done.stdout
    if gpus is not None:
        assert f"GPUS is '{gpus}', not a number from 1 to 99999" in done.stderr
    assert not list(tmp_path.iterdir())
