"""Flags that are rarely used do what their help says, from the command line on."""

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from attnpool_backbones.backbones import AttnResNet
from attnpool_backbones.cli import main
from attnpool_backbones.config_files import config_root
from attnpool_backbones.config_types import type_name
from attnpool_backbones.datasets.digit_scenes import generate
from attnpool_backbones.launching import launch
from attnpool_backbones.own_data.bases import HEADS, find_backbones
from attnpool_backbones.zoo.config_sizes import Size
from tests.inference.conftest import save_run
from tests.own_data.scenes import load_scenes, voc

NANO = ('--backbone', 'caformer-nano', '--size', '64')
TRAIN = ('train', 'photos', *NANO, '--head', 'faster-rcnn', '--no-forecast', '--epochs', '1',
         '--batch', '2', '--workers', '0')  # fmt: skip


@pytest.fixture(scope='module')
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('flags')
    generate(folder / 'scenes', train=6, val=2, size=(64, 64))
    voc(load_scenes(folder / 'scenes'), folder / 'photos', False)
    shutil.rmtree(folder / 'photos' / 'ImageSets')  # the splits
    torch.save(AttnResNet(arch='resnet_nano').state_dict(), folder / 'plain.pth')
    save_run(folder / 'scenes', folder / 'run', 'faster-rcnn')
    log = folder / 'run' / '20260101_000000' / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True)
    log.write_text('{"coco/bbox_mAP": 0.5, "step": 1}\n')
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def drawn(words: Sequence[str]) -> dict[str, bytes]:
    """Returns the numbers and the picture of a figure."""
    torch.manual_seed(0)
    assert main(['figure', *words, '--out', 'out']) == 0
    numbers, picture = (Path('out', f'{words[0]}.{kind}') for kind in ('json', 'png'))
    return dict(numbers=numbers.read_bytes(), picture=picture.read_bytes())


LOOKING = (
    '--random-weights',
    '--images',
    'scenes/images/validation',
    '--limit',
    '1',
    '--size',
    '64',
)
GATES = ('gates', 'AttnResNet:sge_resnet_nano', *LOOKING)
NUMBERS, PICTURE = {'numbers'}, {'picture'}


@pytest.mark.parametrize(
    'words, flags',
    [
        (GATES, [('--units layer3.1.sge', PICTURE)]),
        ((*GATES, '--beside', 'AttnResNet:resnet_nano'),
         [('--beside-checkpoint plain.pth', NUMBERS | PICTURE)]),
        (('collapse', 'DeepViT:nano', *LOOKING),
         [('--threshold 0.9999999', NUMBERS | PICTURE),
          ('--head-threshold 0.9999999', NUMBERS | PICTURE)]),
        (('activations', 'AttnResNet:sge_resnet_nano', *LOOKING),
         [('--unit layer1.0.sge', PICTURE), ('--small 0.1', NUMBERS)]),
        (('mixers', 'attention', '--channels', '32', '--sides', '14', '--rounds', '0'),
         [('--formulas', NUMBERS | PICTURE)]),
        (('trade-off', 'run'), [('--input 64x96', NUMBERS | PICTURE)]),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else '',
)  # fmt: skip
def test_a_figure_differs(
    words: Sequence[str], flags: Sequence[tuple[str, set[str]]], here: Path
) -> None:
    plain = drawn(words)
    assert drawn(words) == plain
    for flag, changed in flags:
        other = drawn([*words, *flag.split()])
        assert {name for name in plain if other[name] != plain[name]} == changed


def test_masks_are_verified(here: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(['verify', 'scenes']) == main(['verify', 'scenes', '--masks']) == 0
    next((here / 'scenes/annotations/training').glob('*.png')).write_bytes(b'no picture')
    assert main(['verify', 'scenes']) == 0
    assert main(['verify', 'scenes', '--masks']) == 1


def test_splits_of_a_config(here: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(['config', 'scenes', *NANO, '--head', 'faster-rcnn', '--out', 'own.py']) in (
        0,
        None,
    )
    capsys.readouterr()
    for split, count in (('train', 6), ('val', 2)):
        assert main(['verify', 'own.py', '--splits', split, '--workers', '1']) == 0
        assert f'({count} of {split})' in capsys.readouterr().out
        assert main(['browse', 'own.py', '--split', split]) in (0, None)
        assert f'{count} samples: ' in capsys.readouterr().out
    next((here / 'scenes/images/training').glob('*.png')).write_bytes(b'no picture')
    assert main(['verify', 'own.py', '--splits', 'val', '--workers', '1']) == 0
    assert main(['verify', 'own.py', '--splits', 'train', 'val', '--workers', '1']) == 1


@pytest.mark.parametrize(
    'command',
    ['verify own.py --masks', 'verify own.py --classes one', 'verify own.py --ignore-label 3',
     'browse own.py --head mask-rcnn', 'browse own.py --size 64', 'train own.py --val-share 0.5',
     'train own.py --split-seed 1', 'verify scenes --splits train'],
)  # fmt: skip
def test_flags_that_say_nothing_are_refused(
    command: str, here: Path, capsys: pytest.CaptureFixture
) -> None:
    (here / 'own.py').write_text('')
    words = command.split()
    assert main(words) == 2
    kind = 'a config; of scenes' if words[1] == 'scenes' else 'a folder; own.py'
    assert f'{words[2]}: for {kind}' in capsys.readouterr().err


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list:
    """Gets the plan of each run, which does not start."""
    found = []
    monkeypatch.setattr(launch, 'run_training', lambda plan, rank: found.append(plan))
    return found


def init_cfg(plan: Any) -> Any:
    return plan.cfg.model.backbone.get('init_cfg')


def max_bad(plan: Any) -> int:
    (hook,) = [h for h in plan.cfg.custom_hooks if type_name(h) == 'SkipBadDataHook']
    return hook.max_bad


def trained_on(plan: Any) -> set[str]:
    content = json.loads(Path(plan.cfg.train_dataloader.dataset.ann_file).read_text())
    return {image['file_name'] for image in content['images']}


@pytest.mark.parametrize(
    'flag, look',
    [
        (('--weights', 'whole.pth'), init_cfg),
        (('--max-bad', '3'), max_bad),
        (('--split-seed', '5'), trained_on),
    ],
    ids=['weights', 'max-bad', 'split-seed'],
)
def test_a_training_differs(flag: Sequence[str], look: Any, here: Path, plans: list) -> None:
    from attnpool_backbones.backbones import MetaFormer

    torch.save(MetaFormer(arch='caformer_nano').state_dict(), 'whole.pth')
    seen = []
    for more in ((), flag):
        assert main([*TRAIN, *more]) == 0
        seen.append(look(plans[-1]))
    assert seen[0] != seen[1]
    assert main([*TRAIN, *flag, '--weights', 'none']) == 0
    assert init_cfg(plans[-1]) is None


def test_a_training_with_all_of_them(here: Path, capsys: pytest.CaptureFixture) -> None:
    flags = ('--weights', 'none', '--max-bad', '0', '--split-seed', '5', '--seed', '0',
             '--work-dir', 'own')  # fmt: skip
    assert main([*TRAIN, *flags]) == 0
    assert main(['test', 'own', '--max-bad', '0']) == 0
    assert 'coco/bbox_mAP: ' in capsys.readouterr().out


def test_the_learning_rate_is_scaled(here: Path) -> None:
    assert main(['config', 'photos', *NANO, '--head', 'faster-rcnn', '--out', 'own.py']) == 0
    words = ('train', 'own.py', '--batch', '2', '--workers', '0', '--epochs', '1', '--seed', '0')
    options = ('--cfg-options', 'auto_scale_lr.base_batch_size=8')
    rates = []
    for flags in ((), ('--auto-scale-lr',)):
        run = f'run_{len(rates)}'
        assert main([*words, *flags, *options, '--work-dir', run]) == 0
        checkpoint = torch.load(Path(run, 'epoch_1.pth'), weights_only=False)
        rates.append(checkpoint['optimizer']['param_groups'][0]['initial_lr'])
    assert rates[1] == pytest.approx(rates[0] / 4)


def test_windows_need_a_screen(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from mmengine.visualization import Visualizer

    monkeypatch.setattr('matplotlib.get_backend', lambda: 'agg')
    assert main(['test', 'run', '--show']) == 2
    assert '--show: ' in capsys.readouterr().err
    shown = []
    monkeypatch.setattr('matplotlib.get_backend', lambda: 'tkagg')
    monkeypatch.setattr(Visualizer, 'show', lambda self, image, **said: shown.append(said))
    assert main(['test', 'run', '--show', '--wait-time', '0.5']) == 0
    assert [said['wait_time'] for said in shown] == [0.5, 0.5]


def tool(name: str, words: Sequence[str], root: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    import runpy

    path = str(root / 'tools' / f'{name}.py')
    monkeypatch.setattr(sys, 'argv', [path, *words])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(path, run_name='__main__')
    return end.value.code


def test_all_configs_are_counted_again(
    repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    counted = []

    def count(config: Path) -> Size:
        counted.append(config)
        return Size(7, 7, 64, 64)

    monkeypatch.setattr('attnpool_backbones.zoo.tables.measure_size', count)
    monkeypatch.chdir(tmp_path)
    for name in ('_base_', 'deepvit'):
        shutil.copytree(config_root() / name, tmp_path / 'configs' / name)
    shutil.copy(config_root() / 'sources.yml', tmp_path / 'configs')
    Path('model-index.yml').write_text('Import:\n- configs/deepvit/metafile.yml\n')
    for flags in ([], ['--count-all']):
        assert not counted
        # one family alone is not all that the page on results has
        assert tool('analysis_tools/make_tables', ['--check', *flags], repo_root, monkeypatch) == 2
        stale = 'configs/deepvit/metafile.yml' in capsys.readouterr().err
        assert stale == bool(flags)
    configs = {file.name for file in (tmp_path / 'configs' / 'deepvit').glob('*.py')}
    assert {file.name for file in counted} == configs


def test_times_are_left_to_a_later_call(
    repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from attnpool_backbones.experiments import exported_scores

    def stage(result: dict[str, Any]) -> Any:
        return lambda name, root, folder: dict(result, name=name)

    stages = dict(trained=stage(dict(model=dict(mIoU=50.0), onnx=dict(mIoU=50.0))),
                  int8=stage(dict(int8=dict(mIoU=49.0), lost=dict(mIoU=[1.0, 0.5]))),
                  times=stage(dict(seconds=[0.1, 0.2], machine='a machine')))  # fmt: skip
    monkeypatch.setattr(exported_scores, 'STAGES', stages)
    monkeypatch.chdir(tmp_path)
    words = ['--only', exported_scores.ROWS[0], '--work-dir', 'scores']
    for more, told in (['--no-times'], False), ([], True):
        name = 'analysis_tools/exported_scores'
        assert tool(name, [*words, *more], repo_root, monkeypatch) == 0
        assert ('a machine' in capsys.readouterr().out) == told


def test_models_are_listed(capsys: pytest.CaptureFixture) -> None:
    assert main(['models']) == 0
    lines = capsys.readouterr().out.splitlines()
    listed = dict(line.split(': ', 1) for line in lines if ': ' in line)
    files = {file.stem for file in (config_root() / '_base_' / 'backbones').glob('*.py')}
    assert set(listed['backbones'].split(', ')) == files == set(find_backbones())
    for task, segments in (('detection', False), ('segmentation', True)):
        names = listed[f'heads for {task}'].split(', ')
        assert names == [name for name, head in HEADS.items() if head.segments == segments]


def test_models_are_counted(here: Path, capsys: pytest.CaptureFixture) -> None:
    """The table tells what the config of that head and backbone comes to."""
    from attnpool_backbones.inference.loading import load_model

    assert main(['models', '--backbone', 'caformer-nano', '--size', '320']) == 0
    text = capsys.readouterr().out
    rows = {cells[1]: cells[2:] for line in text.splitlines() if len(cells := line.split('│')) > 3}
    rows = {name.strip(): [cell.strip() for cell in cells] for name, cells in rows.items()}
    assert 'at 320x320' in text and set(rows) <= set(HEADS)
    own = sum(p.numel() for p in load_model('run')[0].parameters()) / 1e6
    assert float(rows['faster-rcnn'][0].removesuffix(' M')) == pytest.approx(own, abs=0.3)
    assert all(float(cells[1].removesuffix(' G')) > 0 for cells in rows.values())
