"""Data that cannot be used is left out and named, up to a limit, and odd data just works."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset, pseudo_collate
from PIL import Image
from torch.utils.data import DataLoader

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from attnpool_backbones.command_line import UserError
from attnpool_backbones.datasets.digit_scenes import generate
from attnpool_backbones.engine.bad_data_hook import BadDataError, SkipBadDataHook
from attnpool_backbones.engine.predictions import own_name
from attnpool_backbones.launching.config import load_config
from attnpool_backbones.launching.data_check import require_annotations
from attnpool_backbones.launching.devices import enable_amp, is_amp, make_norms_plain
from attnpool_backbones.registry import TRANSFORMS
from tests.launching.tiny_scenes import log_of, run_test, run_training, write_config

TRAIN, VAL, MAPS = 'images/training', 'images/validation', 'annotations/training'


@pytest.fixture(scope='module')
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('data') / 'digit_scenes'
    generate(root, train=6, val=3, size=64)
    return root


@pytest.fixture
def scenes(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / 'scenes')


def damage(root: Path, kind: str, folder: str, name: str) -> Path:
    path = root / folder / name
    content = path.read_bytes()
    if kind == 'missing':
        path.unlink()
    elif kind == 'labels':
        Image.fromarray(np.full((64, 64), 77, np.uint8)).save(path)
    else:
        path.write_bytes(
            dict(empty=b'', text=b'no picture', cut=content[: len(content) // 2])[kind]
        )
    return path


# task -> what is wrong, and where
FAULTS = {
    'det': [('missing', TRAIN), ('empty', TRAIN), ('text', TRAIN)],
    'seg': [('text', TRAIN), ('cut', MAPS), ('missing', MAPS), ('labels', MAPS)],
}


@pytest.mark.parametrize('task', FAULTS)
def test_training_leaves_out_and_names(task: str, scenes: Path, tmp_path: Path) -> None:
    names = [p.name for p in sorted((scenes / TRAIN).iterdir())]
    bad = names[: len(FAULTS[task])]
    for (kind, folder), name in zip(FAULTS[task], bad, strict=True):
        damage(scenes, kind, folder, name)
    lines = 'train_cfg = dict(max_iters=6, val_interval=6)' if task == 'seg' else ''
    log = log_of(run_training(write_config(tmp_path, task, scenes, lines)))
    assert f'{len(bad)} images could not be used and were left out' in log
    assert all(f'of at most 10: {scenes / TRAIN / name}' in log for name in bad)
    limit = len(bad) - 1
    with pytest.raises(
        BadDataError, match=f'{len(bad)} images cannot be used, and at most {limit}'
    ):
        run_training(write_config(tmp_path, task, scenes, lines), max_bad=limit)


@pytest.mark.slow
def test_processes_that_load_report_to_the_one_that_trains(scenes: Path, tmp_path: Path) -> None:
    path = damage(scenes, 'text', TRAIN, '000002.png')
    config = write_config(
        tmp_path, 'det', scenes, 'train_dataloader = dict(num_workers=2, persistent_workers=True)'
    )
    assert f'1 of at most 10: {path}' in log_of(run_training(config))


SWITCH = """
switch = dict(
    type='mmdet.PipelineSwitchHook', switch_epoch=1, switch_pipeline=_base_.train_pipeline
)
custom_hooks = [*_base_.custom_hooks, switch]
train_cfg = dict(max_epochs=2, val_interval=2)
"""


@pytest.mark.parametrize(
    'workers',
    [
        '',
        pytest.param(
            'train_dataloader = dict(num_workers=1, persistent_workers=True)',
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_pipeline_that_is_switched_leaves_out_too(
    workers: str, scenes: Path, tmp_path: Path
) -> None:
    path = damage(scenes, 'text', TRAIN, '000002.png')
    work_dir = run_training(write_config(tmp_path, 'det', scenes, SWITCH + workers))
    log = log_of(work_dir)
    assert 'Switch pipeline now!' in log and f'1 of at most 10: {path}' in log
    assert (work_dir / 'epoch_2.pth').exists()


def train_on_mosaics(scenes: Path, workers: int, max_bad: int) -> list[str]:
    """Loads the batches of an epoch as a training does, and returns the warnings."""
    from mmdet.datasets import CocoDataset, MultiImageMixDataset

    classes = json.loads((scenes / 'annotations/instances_train.json').read_text())['categories']
    images = CocoDataset(
        data_root=str(scenes),
        ann_file='annotations/instances_train.json',
        data_prefix=dict(img=TRAIN),
        metainfo=dict(classes=tuple(each['name'] for each in classes)),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='mmdet.LoadAnnotations')],
    )
    mixing = [dict(type='Mosaic', img_scale=(64, 64)), dict(type='PackDetInputs')]
    loader = DataLoader(
        MultiImageMixDataset(images, mixing), 2, num_workers=workers, collate_fn=pseudo_collate
    )
    told: list[str] = []
    runner = SimpleNamespace(
        cfg={},
        train_loop=SimpleNamespace(dataloader=loader),
        logger=SimpleNamespace(warning=told.append),
    )
    hook = SkipBadDataHook(max_bad)
    hook.before_train(runner)
    for index, batch in enumerate(loader):
        hook.before_train_iter(runner, index, batch)
        assert set(batch) == {'inputs', 'data_samples'} and len(batch['inputs']) == 2
    return told


@pytest.mark.parametrize('workers', [0, 1])
def test_images_that_several_make_are_counted(workers: int, scenes: Path) -> None:
    path = damage(scenes, 'text', TRAIN, '000002.png')
    (line,) = train_on_mosaics(scenes, workers, max_bad=1)
    assert f'1 of at most 1: {path}' in line
    with pytest.raises(BadDataError, match=f'(?s)1 images cannot be used, and at most 0 .*{path}'):
        train_on_mosaics(scenes, workers, max_bad=0)
    for image in (scenes / TRAIN).iterdir():
        image.write_bytes(b'')
    with pytest.raises(BadDataError, match=f'(?s)no image can be used.*{path}'):
        train_on_mosaics(scenes, workers, max_bad=10)


@pytest.mark.parametrize(('stage', 'is_test'), [('train', False), ('val', True), ('test', True)])
def test_a_bad_image_of_a_test_is_not_replaced(stage: str, is_test: bool) -> None:
    """Whatever the data set says: those of segmentors do not say that they are for testing."""
    dataset = BaseDataset(lazy_init=True, pipeline=[dict, dict])
    loader = SimpleNamespace(dataset=dataset, collate_fn=list)
    loop = SimpleNamespace(dataloader=loader)
    runner = SimpleNamespace(cfg={}, model=torch.nn.Identity(), **{f'{stage}_loop': loop})
    getattr(SkipBadDataHook(), f'before_{stage}')(runner)
    assert dataset.pipeline.test_mode is is_test


def made_of(labels: list[int]) -> dict:
    """A sample as mmseg packs it."""
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    truth = PixelData(data=torch.tensor(labels).view(1, 1, -1))
    return dict(data_samples=SegDataSample(gt_sem_seg=truth))


MADE = {
    'packed': made_of,
    'mixed': lambda labels: dict(seg_fields=[], gt_seg_map=np.array([labels])),
}


@pytest.mark.parametrize('made', MADE)
@pytest.mark.parametrize('stage', ['train', 'val', 'test'])
@pytest.mark.parametrize(
    ('ignores', 'labels', 'wrong'),
    [
        ({}, [0, 1, 255], []),
        ({}, [0, 2, 255], [2]),
        (dict(ignore_index=2), [0, 1, 2], []),
        (dict(ignore_index=2), [0, 2, 255], [255]),
    ],
)
def test_labels_are_of_a_class_or_ignored(
    ignores: dict, labels: list[int], wrong: list[int], stage: str, made: str
) -> None:
    """In training as the heads say; in a test as the metrics say, and 255."""
    wrong = wrong if stage == 'train' else [label for label in wrong if label != 255]
    dataset = BaseDataset(
        lazy_init=True, metainfo=dict(classes=('a', 'b')), pipeline=[lambda _: MADE[made](labels)]
    )
    cfg = {
        'model': dict(
            type='SegTTAModel',
            module=dict(decode_head=[dict(ignores), dict(ignores)], auxiliary_head=None),
        ),
        f'{stage}_evaluator': dict(type='IoUMetric', **ignores),
    }
    loop = SimpleNamespace(dataloader=SimpleNamespace(dataset=dataset, collate_fn=list))
    runner = SimpleNamespace(cfg=cfg, model=torch.nn.Identity(), **{f'{stage}_loop': loop})
    getattr(SkipBadDataHook(), f'before_{stage}')(runner)
    dataset.pipeline({})
    assert [bad.reason.partition(' has ')[2].partition(',')[0] for bad in dataset.pipeline.bad] == [
        str(values) for values in [wrong] if values
    ]


TOOL = """
import sys
from attnpool_backbones.command_line import exit_command
from attnpool_backbones.launching.launch import test, train
from tests.launching.tiny_scenes import arguments
from pathlib import Path
config, checkpoint = Path(sys.argv[1]), sys.argv[2]
args = arguments(config, launcher='pytorch')
if checkpoint:
    args.checkpoint = checkpoint
exit_command(lambda: (test if checkpoint else train)(args))
"""


def in_two_processes(
    folder: Path, config: Path, checkpoint: str = '', code: int = 0, timeout: float = 500
) -> str:
    root = Path(__file__).resolve().parents[2]
    (folder / 'tool.py').write_text(TOOL)
    launcher = ['-m', 'attnpool_backbones.launching.processes', '--nproc-per-node', '2']
    done = subprocess.run(
        [sys.executable, *launcher, str(folder / 'tool.py'), str(config), checkpoint],
        env=dict(os.environ, PYTHONPATH=str(root), OMP_NUM_THREADS='1'),
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == code, done.stderr[-3000:]
    return done.stdout + done.stderr


def test_two_processes_validate_again_and_again_with_a_bad_image(
    scenes: Path, tmp_path: Path
) -> None:
    # the only image of the second process
    damage(scenes, 'text', VAL, sorted(path.name for path in (scenes / VAL).iterdir())[1])
    lines = 'train_cfg = dict(max_iters=3, val_interval=1)'
    told = in_two_processes(tmp_path, write_config(tmp_path, 'seg', scenes, lines), timeout=100)
    assert told.count('mIoU:') == 3


@pytest.mark.slow
def test_two_processes_leave_out_and_count_once(scenes: Path, tmp_path: Path) -> None:
    bad = damage(scenes, 'text', TRAIN, '000002.png')
    config = write_config(tmp_path, 'seg', scenes, 'train_cfg = dict(max_iters=6, val_interval=6)')
    in_two_processes(tmp_path, config)
    work_dir = config.with_suffix('')
    assert f'1 of at most 10: {bad}' in log_of(work_dir)
    (checkpoint,) = work_dir.glob('*.pth')
    # three images: one process has two of them, in any of the places
    name = sorted(path.name for path in (scenes / VAL).iterdir())
    for number in range(3):
        content = (scenes / VAL / name[number]).read_bytes()
        damage(scenes, 'text', VAL, name[number])
        config = write_config(tmp_path, 'seg', scenes)
        expected = run_test(config, checkpoint, work_dir=str(tmp_path / f'alone{number}'))
        told = in_two_processes(tmp_path, config, str(checkpoint))
        assert f'mIoU: {expected["mIoU"]:.4f}' in told
        (scenes / VAL / name[number]).write_bytes(content)


@pytest.mark.slow
def test_a_sharded_model_is_validated_by_all_processes(scenes: Path, tmp_path: Path) -> None:
    """One that has left out all of its images takes part in the others' steps."""
    # batch norms would have the statistics of each process's own images
    norm = 'model = dict(decode_head=dict(norm_cfg=dict(type="GN", num_groups=8)))\n'
    names = sorted(path.name for path in (scenes / VAL).iterdir())
    contents = {name: (scenes / VAL / name).read_bytes() for name in names}
    for bad in (names[:1], names[1:]):
        for name in bad:
            damage(scenes, 'text', VAL, name)
        config = write_config(
            tmp_path,
            'seg',
            scenes,
            f"{norm}strategy = dict(type='attnpool_backbones.ShardedStrategy')\n"
            'val_dataloader = dict(batch_size=1)',
        )
        told = in_two_processes(tmp_path, config)
        (checkpoint,) = config.with_suffix('').glob('*.pth')
        alone = run_test(write_config(tmp_path, 'seg', scenes, norm), checkpoint)
        assert f'mIoU: {alone["mIoU"]:.4f}' in told
        for name in bad:
            (scenes / VAL / name).write_bytes(contents[name])


@pytest.mark.parametrize('max_bad', [2, pytest.param(10, marks=pytest.mark.slow)])
def test_nothing_is_left(max_bad: int, scenes: Path, tmp_path: Path) -> None:
    for path in (scenes / TRAIN).iterdir():
        path.write_bytes(b'')
    with pytest.raises(BadDataError, match='000001.png') as caught:
        run_training(write_config(tmp_path, 'det', scenes), max_bad=max_bad)
    assert 'images cannot be used' in str(caught.value) or 'no image can be' in str(caught.value)


@pytest.mark.parametrize('task', [pytest.param('det', marks=pytest.mark.slow), 'seg'])
def test_testing_leaves_out_and_names(task: str, scenes: Path, tmp_path: Path) -> None:
    work_dir = run_training(write_config(tmp_path, task, scenes))
    (checkpoint,) = work_dir.glob('*.pth')
    bad = damage(scenes, 'text', VAL, sorted(p.name for p in (scenes / VAL).iterdir())[1])
    # a batch of the bad image alone, and one with a good one
    for size in (1, 2):
        config = write_config(tmp_path, task, scenes, f'test_dataloader = dict(batch_size={size})')
        metrics = run_test(config, checkpoint)
        assert metrics and f'1 of at most 10: {bad}' in log_of(config.with_suffix(''))
    with pytest.raises(BadDataError):
        run_test(write_config(tmp_path, task, scenes), checkpoint, max_bad=0)
    for path in (scenes / VAL).iterdir():
        path.write_bytes(b'')
    with pytest.raises(BadDataError, match='there is nothing to evaluate'):
        run_test(write_config(tmp_path, task, scenes), checkpoint)


def change(root: Path, split: str, edit: object) -> None:
    path = root / f'annotations/instances_{split}.json'
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


# how to spoil the annotations -> the message
FATAL = {
    'text in a polygon': (
        lambda c: c['annotations'][1].update(segmentation=[['a', 1, 2, 3, 4, 5]]),
        'annotation 2 of image',
    ),
    'box of three': (lambda c: c['annotations'][0].update(bbox=[1, 2, 3]), '[1, 2, 3], not'),
    'no area': (lambda c: c['annotations'][0].pop('area'), 'without area'),
    'ids twice': (lambda c: c['annotations'][0].update(id=2), 'used more than once'),
    'runs too short': (
        lambda c: c['annotations'][0].update(segmentation=dict(size=[64, 64], counts=[3])),
        'counts of 3 pixels',
    ),
    'no categories': (lambda c: c.pop('categories'), 'damaged annotation file'),
    'other order': (lambda c: c['categories'].reverse(), 'other classes than in train'),
}
TOLD = {
    'box of no area': lambda c: c['annotations'][0].update(bbox=[3, 3, 0, 5]),
    'wrong class id': lambda c: c['annotations'][0].update(category_id=99),
    'annotation without an image': lambda c: c['annotations'][0].update(image_id=99),
    'box below one pixel': lambda c: c['annotations'][0].update(bbox=[3, 3, 0.5, 5]),
    'image below min_size': lambda c: c['images'].append(
        dict(c['images'][0], id=77, file_name='small.png', width=20)
    ),
}


@pytest.mark.parametrize('name', FATAL)
def test_annotations_that_end_a_training(name: str, scenes: Path, tmp_path: Path) -> None:
    edit, part = FATAL[name]
    change(scenes, 'train', edit)
    with pytest.raises(UserError, match='instances_train|train:') as caught:
        run_training(write_config(tmp_path, 'det', scenes))
    assert part in str(caught.value)


@pytest.mark.parametrize('name', TOLD)
def test_annotations_that_are_left_out_are_told(name: str, scenes: Path, tmp_path: Path) -> None:
    change(scenes, 'train', TOLD[name])
    cfg = load_config(str(write_config(tmp_path, 'det', scenes)))
    (line,) = require_annotations(cfg, ('train', 'val'), max_bad=10)
    assert line.startswith(f'{name}: train: ')
    with pytest.raises(UserError, match=name):
        require_annotations(cfg, ('train', 'val'), max_bad=0)


@pytest.mark.slow
def test_what_one_process_finds_ends_all(scenes: Path, tmp_path: Path) -> None:
    """Only the first of a machine reads the annotations; the others wait for it in the group."""
    change(scenes, 'train', FATAL['box of three'][0])
    told = in_two_processes(tmp_path, write_config(tmp_path, 'det', scenes), code=2)
    assert told.count('error: the data of ') == 1 and '[1, 2, 3], not' in told
    assert 'Traceback' not in told


@TRANSFORMS.register_module()
class KillsItsProcessOnce:
    """A step of a pipeline that ends the process it runs in, the first time."""

    def __init__(self, marker: str) -> None:
        self.marker = Path(marker)

    def __call__(self, results: dict) -> dict:
        if not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return results


def test_a_killed_loader_of_a_test_is_replaced(scenes: Path, tmp_path: Path) -> None:
    work_dir = run_training(write_config(tmp_path, 'seg', scenes))
    (checkpoint,) = work_dir.glob('*.pth')
    expected = run_test(write_config(tmp_path, 'seg', scenes), checkpoint)
    step = dict(type='attnpool_backbones.KillsItsProcessOnce', marker=str(tmp_path / 'killed'))
    config = write_config(
        tmp_path,
        'seg',
        scenes,
        f'pipeline = [{step!r}, *_base_.test_pipeline]\n'
        'test_dataloader = dict(batch_size=1, num_workers=1, dataset=dict(pipeline=pipeline))',
    )
    assert run_test(config, checkpoint) == expected
    assert (tmp_path / 'killed').exists()
    assert 'It is replaced' in log_of(config.with_suffix(''))


def test_label_maps_of_ignored_pixels_alone_train(scenes: Path, tmp_path: Path) -> None:
    for path in (scenes / 'annotations/training').iterdir():
        Image.fromarray(np.full((64, 64), 255, np.uint8)).save(path)
    assert 'loss: 0.0000' in log_of(run_training(write_config(tmp_path, 'seg', scenes)))


@pytest.mark.slow
def test_odd_loaders_train(scenes: Path, tmp_path: Path) -> None:
    """Without processes, with fewer images than a batch, one image at a time."""
    lines = (
        'train_dataloader = dict(batch_size=50, num_workers=0, persistent_workers=True)\n'
        'val_dataloader = dict(batch_size=1, persistent_workers=True)'
    )
    for task in ('det', 'seg'):
        run_training(write_config(tmp_path, task, scenes, lines))
    run_training(write_config(tmp_path, 'det', scenes, 'train_dataloader = dict(batch_size=1)'))


def test_thin_images_are_evaluated(scenes: Path, tmp_path: Path) -> None:
    work_dir = run_training(write_config(tmp_path, 'seg', scenes))
    (checkpoint,) = work_dir.glob('*.pth')
    for size, name in zip([(300, 20), (7, 90), (2, 64)], sorted((scenes / VAL).iterdir()),
                          strict=True):  # fmt: skip
        Image.new('RGB', size).save(name)
        path = scenes / 'annotations/validation' / name.name
        Image.new('L', size).save(path)
    one = 'test_dataloader = dict(batch_size=1)'
    metrics = run_test(write_config(tmp_path, 'seg', scenes, one), checkpoint)
    assert metrics['mIoU'] >= 0


# ------------------------------------------------------------------ what a test writes


@pytest.mark.parametrize('task', [pytest.param('det', marks=pytest.mark.slow), 'seg'])
def test_images_of_one_name_have_a_file_each(task: str, scenes: Path, tmp_path: Path) -> None:
    work_dir = run_training(write_config(tmp_path, task, scenes))
    (checkpoint,) = work_dir.glob('*.pth')
    for kind in (VAL, 'annotations/validation'):
        for path in sorted((scenes / kind).iterdir()):
            folder = scenes / kind / f'of_{path.stem}'
            folder.mkdir()
            path.rename(folder / 'a.png')
    change(scenes, 'val', lambda c: [
        i.update(file_name=f'of_{Path(i["file_name"]).stem}/a.png') for i in c['images']
    ])  # fmt: skip
    # a training set that is not there does not matter
    lines = "train_dataloader = dict(dataset=dict(data_root='/nowhere'))"
    flags = dict(show_dir=str(tmp_path / 'show'))
    if task == 'seg':
        flags['out'] = str(tmp_path / 'maps')
    run_test(write_config(tmp_path, task, scenes, lines), checkpoint, **flags)
    names = sorted(str(p.relative_to(scenes / VAL)) for p in (scenes / VAL).rglob('*.png'))
    assert len(names) == 3
    for folder in ('show', 'maps')[: 1 + (task == 'seg')]:
        root = tmp_path / folder
        assert sorted(str(p.relative_to(root)) for p in root.rglob('*.png')) == names
    if task == 'seg':
        with Image.open(tmp_path / 'maps' / names[0]) as labels:
            assert labels.size == (64, 64) and labels.mode == 'L'


def test_names_of_files() -> None:
    assert own_name('/data/a/x/1.png', ['/data/a']) == Path('x/1.png')
    assert own_name('/data/b/1.png', ['/data/a', '/data/b']) == Path('b/1.png')
    assert own_name('/other/1.png', ['/data/a']) == Path('other/1.png')
    assert own_name('/data/1.png', []) == Path('data/1.png')


# ------------------------------------------------------------------ types and the screen


def test_types_may_be_texts_scoped_texts_or_classes() -> None:
    from mmengine.optim import AmpOptimWrapper, OptimWrapper
    from torch.nn import SyncBatchNorm

    for kind in ('OptimWrapper', 'mmengine.OptimWrapper', OptimWrapper):
        cfg = Config(dict(optim_wrapper=dict(type=kind)))
        enable_amp(cfg)
        assert 'Amp' in cfg.optim_wrapper.type
    for kind in ('AmpOptimWrapper', 'mmengine.AmpOptimWrapper', AmpOptimWrapper):
        assert is_amp(Config(dict(optim_wrapper=dict(type=kind))))
    for kind in ('SyncBN', 'mmcv.SyncBN', 'mmengine.MMSyncBN', SyncBatchNorm):
        model = dict(norm_cfg=dict(type=kind))
        make_norms_plain(model)
        assert model['norm_cfg']['type'] == 'BN'


def test_the_screen_has_what_a_user_needs(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    damage(scenes, 'text', TRAIN, '000002.png')
    change(scenes, 'train', TOLD['wrong class id'])
    work_dir = run_training(write_config(tmp_path, 'det', scenes))
    screen, log = capsys.readouterr().out, log_of(work_dir)
    for survey in ('System environment:', 'Config:\n', 'Hooks will be executed'):
        assert survey in log and survey not in screen
    assert 'left out, 1 of at most 10' in screen and 'data: wrong class id: train: ' in screen
    assert len(screen.splitlines()) < 120 < len(log.splitlines())
