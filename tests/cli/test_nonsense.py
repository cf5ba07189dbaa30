"""Nonsense on any command line is one message and exit code 2, soon, and leaves nothing behind."""

import os
import runpy
import sys
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import pytest
import torch

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from attnpool_backbones.cli import COMMANDS, main

LONG = 'a' * 300
NO_TEXT = os.fsdecode(b'\xff\xfe')
BIG = '1' + '0' * 20

INPUTS = ('', 's3://bucket/x', 'foo://x/y', 'http://[a/x', '/proc/nope', '/dev/zero', LONG,
          NO_TEXT, 'x\ny', '~nobody_at_all/x', 'noise.pth', 'pipe')  # fmt: skip
"""Named where something is read."""
FOLDERS = ('', 's3://bucket/x', 'foo://x', '/proc/nope/x', '/dev/null/x', LONG, '/dev/full',
           'noise.pth', 'pipe')  # fmt: skip
"""Named where a folder is written to."""
CONFIGS = ('noise.py', 'pipe.py', f'{LONG}.py', f'{NO_TEXT}.py', 'http://[a/x.py')
"""Named where a config is read."""
FILES = ('', 's3://bucket/x', '/proc/nope/x', '/dev/null/x', LONG)
"""Named where a file is written, before its ending."""
COUNTS = ('0', '-1', BIG, 'nan', 'inf', '1.5', '', '9' * 5000)
SEEDS = ('-1', BIG, 'nan', '')
SIDES = (*COUNTS, '31', '100000', '²')
SHARES = ('0', '1', '-1', 'nan', 'inf', '1.5', '', '9' * 5000)
DEVICES = ('', 'x', 'cuda:99', 'meta', NO_TEXT)
DURATIONS = ('', '0', '-1', 'nan', 'inf', 'soon', '1e400', '²h', '9' * 5000, '9' * 400 + 'd')

MODEL = ('PatchConvNet:nano', '--random-weights', '--images', 'img', '--size', '64')
LOOKING = ('attnpool', 'figure', 'pooling')
FIGURE = (*LOOKING, *MODEL)
OWN = ('attnpool', 'config', 'photos', '--backbone', 'caformer-nano')
BENCHMARK = ('analysis_tools/benchmark', 'PatchConvNet:nano')
SCENES = ('dataset_converters/make_digit_scenes',)
PREDICT = ('attnpool', 'predict', 'run', 'img')
TRAIN = ('attnpool', 'train', 'a.py')
CONVERT = ('model_converters/convert_checkpoint',)
VERIFY = ('misc/verify_dataset', 'a.py')
MATRIX = ('misc/matrix', '--python', '3.14', '--torch', 'oldest')

# the beginning of a command line, and what follows it
TABLE: Sequence[tuple[Sequence[str], Sequence[str]]] = [
    (('train',), INPUTS),
    (('train', 'a.py', '--resume'), INPUTS),
    (('train', 'a.py', '--work-dir'), FOLDERS),
    (('test',), [f'{name}|x.pth' for name in INPUTS]),
    (('attnpool', 'train'), (*INPUTS, *CONFIGS)),
    ((*TRAIN, '--devices'), (*COUNTS, '0,', 'x,y', '²', NO_TEXT)),
    ((*TRAIN, '--time'), DURATIONS),
    ((*TRAIN, '--checkpoint-every'), DURATIONS),
    ((*TRAIN, '--resume'), INPUTS),
    ((*TRAIN, '--work-dir'), FOLDERS),
    ((*TRAIN, '--val-share'), SHARES),
    (('attnpool', 'predict'), [f'{name}|img' for name in (*INPUTS, *CONFIGS, 'pipe.onnx')]),
    (('attnpool', 'predict', 'run'), (*INPUTS, '²', '9' * 5000, 'camera:²', f'camera:{BIG}')),
    ((*PREDICT, '--checkpoint'), INPUTS),
    ((*PREDICT, '--out'), FOLDERS),
    ((*PREDICT, '--batch'), COUNTS),
    ((*PREDICT, '--slice'), COUNTS),
    ((*PREDICT, '--threads'), COUNTS[1:]),
    ((*PREDICT, '--limit'), COUNTS),
    ((*PREDICT, '--score'), SHARES[1:]),
    ((*PREDICT, '--overlap'), SHARES[1:]),
    ((*PREDICT, '--device'), DEVICES),
    ((*PREDICT, '--annotations'), INPUTS),
    ((*PREDICT, '--cfg-options'), ('', 'a', 'model=3', 'model.type=X', 'max_pixels=0')),
    (('attnpool', 'test'), INPUTS),
    (('attnpool', 'browse'), INPUTS),
    (('attnpool', 'browse', 'a.py', '--count'), COUNTS),
    (('attnpool', 'browse', 'a.py', '--columns'), COUNTS),
    (('attnpool', 'browse', 'a.py', '--seed'), SEEDS),
    (('attnpool', 'config'), INPUTS),
    ((*OWN, '--out'), [name and f'{name}.py' for name in FILES]),
    ((*OWN, '--work-dir'), ['', 's3://bucket/x', 'foo://x']),
    ((*OWN, '--epochs'), COUNTS),
    ((*OWN, '--batch'), COUNTS),
    ((*OWN, '--size'), SIDES),
    ((*OWN, '--freeze'), ('-2', BIG, 'nan', '')),
    ((*OWN, '--lr'), ('0', '-1', 'nan', 'inf', '1e400', '')),
    ((*OWN, '--ignore-label'), ('-1', BIG, 'nan')),
    ((*OWN, '--head'), ('', NO_TEXT, LONG, '../x')),
    (('attnpool', 'models', '--size'), SIDES),
    (('attnpool', 'models', '--backbone'), ('', NO_TEXT, LONG, '../x', '/dev/zero', 's3://x')),
    (('attnpool', 'verify'), INPUTS),
    (('attnpool', 'verify', 'a.py', '--json'), [name and f'{name}.json' for name in FILES]),
    (('attnpool', 'verify', 'a.py', '--examples'), COUNTS[1:]),
    (('attnpool', 'export'), INPUTS),
    (('attnpool', 'export', 'nowhere', '--out'), [name and f'{name}.onnx' for name in FILES]),
    (('attnpool', 'export', 'nowhere', '--batch'), COUNTS),
    (('attnpool', 'export', 'nowhere', '--calibration'), COUNTS),
    (('attnpool', 'export', 'nowhere', '--size', '64'), COUNTS),
    (('attnpool', 'export', 'nowhere', '--images'), INPUTS),
    (('attnpool', 'quickstart', '--work-dir'), FOLDERS),
    (LOOKING, [f'{name}|--images|img' for name in INPUTS]),
    ((*LOOKING, 'PatchConvNet:nano', '--random-weights', '--images'), INPUTS),
    ((*LOOKING, 'PatchConvNet:nano', '--images', 'img', '--checkpoint'), INPUTS),
    ((*FIGURE, '--out'), FOLDERS),
    ((*FIGURE, '--limit'), COUNTS),
    ((*FIGURE, '--top'), COUNTS),
    ((*FIGURE, '--size'), (*SIDES, '100000x100000', '-32x64', f'64x{BIG}')),
    ((*FIGURE, '--device'), DEVICES),
    (('attnpool', 'figure', 'query', 'x', '--images', 'img', '--at'),
     ('-1', BIG, '', '-1,-1', '1,2,3')),
    (('attnpool', 'figure', 'query', 'x', '--images', 'img', '--block'), ('-2', BIG, 'nan')),
    (('attnpool', 'figure', 'mixers'), ('', NO_TEXT, 'x')),
    (('attnpool', 'figure', 'mixers', 'pool', '--sides'), COUNTS),
    (('attnpool', 'figure', 'mixers', 'pool', '--channels'), COUNTS),
    (('attnpool', 'figure', 'mixers', 'pool', '--rounds'), COUNTS[1:]),
    (('attnpool', 'figure', 'trade-off'), INPUTS),
    (('attnpool', 'figure', 'trade-off', '--published'), ('(', '', NO_TEXT, LONG)),
    (('analysis_tools/benchmark', '--size', '32x32'),
     ('', NO_TEXT, LONG, 'DeepViT:', ':', 'X:y', '/dev/zero', 's3://x.py', 'pipe')),
    ((*BENCHMARK, '--out'), FOLDERS),
    ((*BENCHMARK, '--batch'), COUNTS),
    ((*BENCHMARK, '--threads'), COUNTS),
    ((*BENCHMARK, '--repeats'), COUNTS),
    ((*BENCHMARK, '--size'), COUNTS),
    (('analysis_tools/benchmark', '--peers', '--yardstick'), INPUTS),
    (('analysis_tools/benchmark', '--suite', 'nano', '--only'), ('(', '*', 'none')),
    ((*SCENES, '--out-dir'), FOLDERS),
    ((*SCENES, '--train'), COUNTS[:-1]),
    ((*SCENES, '--val'), COUNTS[:-1]),
    ((*SCENES, '--size'), (*COUNTS[:-1], '31', '100000', '²')),
    (('dataset_converters/ade20k',), INPUTS),
    (('dataset_converters/coco2017',), INPUTS),
    (('analysis_tools/try_models',), ('', NO_TEXT, '../mmdet')),
    (('analysis_tools/try_models', '--limit'), (*COUNTS,)),
    (('analysis_tools/accuracy_benchmark', '--only'), ('', NO_TEXT)),
    (('analysis_tools/exported_scores', '--work-dir'), FOLDERS),
    (('analysis_tools/exported_scores', '--only'), ('', NO_TEXT, 'none')),
    (('analysis_tools/make_tables',), ('', '--check', '--count-all', NO_TEXT)),
    (('analysis_tools/figure',), ('', NO_TEXT, 'x')),
    (('quickstart', '--work-dir'), FOLDERS),
    (CONVERT, [f'{name}|x.pth' for name in INPUTS]),
    ((*CONVERT, 'noise.pth'), [name and f'{name}.pth' for name in (*FILES, NO_TEXT)]),
    (('misc/verify_dataset',), (*INPUTS, *CONFIGS)),
    ((*VERIFY, '--workers'), COUNTS),
    ((*VERIFY, '--examples'), COUNTS[1:]),
    ((*VERIFY, '--json'), (*FILES, 'pipe', 'img')),
    ((*MATRIX, '--work-dir'), FOLDERS),
    ((*MATRIX, '--system'), ('', 's3://bucket/x', LONG, NO_TEXT, 'nowhere', 'noise.pth', 'pipe')),
    ((*MATRIX, '--processes'), (*COUNTS, 'x')),
]  # fmt: skip


def cases() -> Iterator[tuple[Sequence[str], str]]:
    for beginning, endings in TABLE:
        yield from product([beginning], endings)


def shown(value: object) -> str:
    text = value if isinstance(value, str) else ' '.join(value)
    return text[:40].encode('ascii', 'backslashreplace').decode().replace('\n', '_')


TRAINABLE = """
default_scope = 'mmdet'
model = dict(type='MaskRCNN')
train_dataloader = dict(dataset=dict(type='CocoDataset'))
train_cfg = dict(by_epoch=True, max_epochs=1)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))
test_dataloader = dict(dataset=dict(type='CocoDataset'))
"""
"""A config that nothing is wrong with before its model is built."""


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from PIL import Image

    folder = tmp_path_factory.mktemp('here')
    (folder / 'noise.pth').write_bytes(bytes(range(100)))
    (folder / 'img').mkdir()
    Image.new('RGB', (64, 64)).save(folder / 'img' / 'a.png')
    for name in ('pipe', 'pipe.py', 'pipe.onnx'):
        os.mkfifo(folder / name)
    (folder / 'noise.py').write_bytes(bytes(range(100)))
    (folder / 'a.py').write_text(TRAINABLE)
    (folder / 'run').mkdir()
    (folder / 'run' / 'config.py').write_text(TRAINABLE)
    torch.save(dict(state_dict=dict(a=torch.zeros(9))), folder / 'run' / 'epoch_1.pth')
    return folder


def run(words: Sequence[str], root: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    name, *rest = words
    try:
        if name == 'attnpool':
            return main(rest)
        path = str(root / 'tools' / f'{name}.py')
        monkeypatch.setattr(sys, 'argv', [path, *rest])
        monkeypatch.setattr(sys, 'path', [*sys.path])
        runpy.run_path(path, run_name='__main__')
    except SystemExit as stop:
        return stop.code


@pytest.mark.parametrize(('beginning', 'ending'), cases(), ids=shown)
def test_one_message(
    beginning: Sequence[str],
    ending: str,
    folder: Path,
    repo_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr('os.execv', None)
    monkeypatch.setattr('subprocess.Popen', None)
    before = sorted(folder.rglob('*'))
    assert run([*beginning, *ending.split('|')], repo_root, monkeypatch) == 2
    message = capsys.readouterr().err
    assert 'error: ' in message and 'Traceback' not in message
    assert len(message.splitlines()[-1]) < 2000
    assert sorted(folder.rglob('*')) == before


def test_every_command_is_in_the_table(repo_root: Path) -> None:
    beginnings = [beginning for beginning, _ in TABLE]
    assert {words[1] for words in beginnings if words[0] == 'attnpool'} == set(COMMANDS)
    tools = repo_root / 'tools'
    scripts = {file.relative_to(tools).with_suffix('').as_posix() for file in tools.rglob('*.py')}
    assert {words[0] for words in beginnings} - {'attnpool'} == scripts
