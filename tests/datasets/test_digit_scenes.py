import hashlib
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attnpool_backbones.command_line import UserError
from attnpool_backbones.datasets import digit_rendering, digit_scenes
from attnpool_backbones.datasets.digit_rendering import (
    CLASSES,
    MAX_DIGITS,
    MAX_HIDDEN,
    PALETTE,
    PHOTO_COLUMNS,
    digit_sources,
    render_scene,
)

REPOSITORY = Path(__file__).parents[2]
PARAMETERS = dict(train=3, val=2, size=(96, 80), seed=5)
FOLDERS = {'train': 'training', 'val': 'validation'}


def _generate(root: Path, **changes) -> dict:
    return digit_scenes.generate(root, **{**PARAMETERS, **changes})


def _hashes(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob('*')
        if path.is_file()
    }


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp('data') / 'digit_scenes'
    assert not _generate(root)['reused']
    return root


@pytest.fixture
def fresh(tmp_path):
    root = tmp_path / 'digit_scenes'
    _generate(root, train=1, val=1, size=64)
    return root


def _regenerate(root: Path, **changes) -> dict:
    return _generate(root, **{'train': 1, 'val': 1, 'size': 64, **changes})


@pytest.fixture(scope='module', params=list(FOLDERS))
def scenes(request):
    return request.param, [render_scene(i, request.param, 96) for i in range(40)]


def test_scene_has_readable_digits_within_limits(scenes):
    split, scenes = scenes
    low, high = (limit // 2 for limit in digit_rendering.DIGIT_HEIGHT)
    for scene in scenes:
        assert scene.image.shape == (96, 96, 3) and scene.image.dtype == np.uint8
        assert 1 <= len(scene.instances) <= MAX_DIGITS
        for instance in scene.instances:
            assert instance.mask.sum() >= (1 - MAX_HIDDEN) * instance.area
            if instance.mask.sum() == instance.area:
                assert low <= np.ptp(np.flatnonzero(instance.mask.any(1))) + 1 <= high
            # The mean colour differs from that of the ring around the stroke.
            grown = np.zeros_like(instance.mask)
            for shift in (-3, 3):
                grown |= np.roll(instance.mask, shift, 0) | np.roll(instance.mask, shift, 1)
            ring = grown & (scene.label_map() == 0)
            difference = scene.image[instance.mask].mean(0) - scene.image[ring].mean(0)
            assert np.abs(difference).max() > 20
    counts = {len(scene.instances) for scene in scenes}
    # A lone digit is rare: one scene in 36.
    assert counts | {1} == set(range(1, MAX_DIGITS + 1)), 'the scenes should vary'
    assert any(i.mask.sum() < i.area for scene in scenes for i in scene.instances), 'no overlap'


def test_masks_are_disjoint_and_make_the_label_map(scenes):
    for scene in scenes[1]:
        masks = np.stack([instance.mask for instance in scene.instances])
        assert masks.sum(0).max() == 1
        labels = np.array([instance.label for instance in scene.instances])
        expected = (masks * (labels + 1)[:, None, None]).sum(0)
        assert np.array_equal(scene.label_map(), expected)
        assert scene.label_map().dtype == np.uint8


def test_splits_share_no_digit():
    train, val = (digit_sources(split) for split in FOLDERS)
    for label in range(len(CLASSES)):
        assert not set(train[label]) & set(val[label])
        assert 0.19 < len(val[label]) / len(train[label] + val[label]) < 0.21
    scans = digit_rendering._digits()[0].reshape(-1, 64)
    as_text = [{scans[i].tobytes() for own in split for i in own} for split in (train, val)]
    assert not as_text[0] & as_text[1], 'two scans are equal'


def test_scene_shows_digits_of_its_split(scenes):
    split, scenes = scenes
    for scene in scenes:
        for instance in scene.instances:
            assert instance.source in digit_sources(split)[instance.label]


@pytest.mark.parametrize('size', [96, (64, 200), (200, 64)])
@pytest.mark.parametrize('split, other', [('train', 'val'), ('val', 'train')])
def test_scene_does_not_depend_on_photo_region_of_other_split(monkeypatch, split, other, size):
    before = [render_scene(i, split, size) for i in range(8)]
    photos = [photo.copy() for photo in digit_rendering._photos()]
    for photo in photos:
        photo[:, slice(*PHOTO_COLUMNS[other])] ^= 255
    monkeypatch.setattr(digit_rendering, '_photos', lambda: tuple(photos))
    for index, scene in enumerate(before):
        assert PHOTO_COLUMNS[split][0] <= scene.crop[0] < scene.crop[2] <= PHOTO_COLUMNS[split][1]
        assert np.array_equal(render_scene(index, split, size).image, scene.image)
        elsewhere = render_scene(index, other, size).image
        monkeypatch.undo()
        assert not np.array_equal(render_scene(index, other, size).image, elsewhere)
        monkeypatch.setattr(digit_rendering, '_photos', lambda: tuple(photos))


def test_scene_is_the_same_as_ever():
    scene = render_scene(0, 'train', 64, seed=0)
    labels, image = (
        hashlib.sha256(array.tobytes()).hexdigest()[:16]
        for array in (scene.label_map(), scene.image)
    )
    assert labels == 'bec8099a09e977dd'
    assert image == '42fb20f0428bf373', 'the digits are right: were the photos decoded differently?'


def test_processes_draw_the_same_scenes(tmp_path, monkeypatch):
    size = dict(train=6, val=3, size=64)
    alone = digit_scenes.generate(tmp_path / 'alone', **size)
    monkeypatch.setattr(digit_scenes, 'PARALLEL_FROM', 2)
    assert digit_scenes.generate(tmp_path / 'many', **size) == alone
    assert _hashes(tmp_path / 'many') == _hashes(tmp_path / 'alone')


def test_a_process_that_dies_is_a_message(tmp_path, monkeypatch):
    monkeypatch.setattr(digit_scenes, 'PARALLEL_FROM', 2)
    monkeypatch.setattr(digit_scenes, 'usable_cores', lambda: 2)
    monkeypatch.setattr(digit_scenes, 'render_scene', lambda *_: os.kill(os.getpid(), 9))
    with pytest.raises(UserError, match='was killed'):
        digit_scenes.generate(tmp_path / 'scenes', train=6, val=3, size=64)
    assert not (tmp_path / 'scenes').exists()


@pytest.mark.parametrize('change', [dict(index=1), dict(split='val'), dict(seed=1)])
def test_scenes_differ(change):
    first = render_scene(**{**dict(index=0, split='train', size=64, seed=0), **change})
    assert not np.array_equal(first.image, render_scene(0, 'train', 64, seed=0).image)


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(index=-1), 'index must be .* at least 0, got -1'),
        (dict(index=0, split='test'), "one of train, val, got 'test'"),
        (dict(index=0, size=63), 'at least 64 .*, got 63'),
        (dict(index=0, size=(64, 64, 3)), 'one or two integers'),
        (dict(index=0, size=96.0), 'one or two integers'),
        (dict(index=0, seed=-1), 'seed must be .* at least 0, got -1'),
    ],
)
def test_wrong_argument_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        render_scene(**arguments)


def test_same_parameters_give_same_bytes(data, tmp_path):
    summary = _generate(tmp_path / 'again')
    assert _hashes(tmp_path / 'again') == _hashes(data)
    assert summary['pixels'] == digit_scenes.verify(data)['pixels']


def test_more_scenes_leave_the_first_ones_alone(data, tmp_path):
    _generate(tmp_path / 'more', train=4, val=3)
    more = _hashes(tmp_path / 'more')
    for name, digest in _hashes(data).items():
        if name.endswith('.png'):
            assert more[name] == digest


@pytest.mark.parametrize('split', list(FOLDERS))
def test_files_show_the_scenes(data, split):
    names = [f'{i + 1:06d}.png' for i in range(PARAMETERS[split])]
    for kind in ('images', 'annotations'):
        assert sorted(os.listdir(data / kind / FOLDERS[split])) == names
    for index, name in enumerate(names):
        scene = render_scene(index, split, PARAMETERS['size'], PARAMETERS['seed'])
        picture = Image.open(data / 'images' / FOLDERS[split] / name)
        labels = Image.open(data / 'annotations' / FOLDERS[split] / name)
        assert (picture.mode, labels.mode) == ('RGB', 'L')
        assert picture.size == labels.size == PARAMETERS['size']
        assert np.array_equal(np.asarray(picture), scene.image)
        assert np.array_equal(np.asarray(labels), scene.label_map())


@pytest.mark.parametrize('split', list(FOLDERS))
def test_coco_file_read_by_pycocotools(data, split):
    from pycocotools.coco import COCO

    coco = COCO(str(data / 'annotations' / f'instances_{split}.json'))
    assert set(coco.dataset) == {'info', 'licenses', 'images', 'annotations', 'categories'}
    assert [c['name'] for c in coco.loadCats(range(1, 11))] == list(CLASSES)
    assert sorted(coco.anns) == list(range(1, len(coco.anns) + 1))
    assert sorted(coco.imgs) == list(range(1, PARAMETERS[split] + 1))
    for index, (image_id, image) in enumerate(sorted(coco.imgs.items())):
        scene = render_scene(index, split, PARAMETERS['size'], PARAMETERS['seed'])
        assert (image['width'], image['height']) == PARAMETERS['size']
        assert (data / 'images' / FOLDERS[split] / image['file_name']).is_file()
        annotations = coco.loadAnns(coco.getAnnIds(image_id))
        assert len(annotations) == len(scene.instances)
        for annotation, instance in zip(annotations, scene.instances, strict=True):
            assert annotation['category_id'] == instance.label + 1
            assert annotation['iscrowd'] == 0
            assert annotation['area'] == instance.mask.sum()
            assert np.array_equal(coco.annToMask(annotation), instance.mask)
            left, top, width, height = annotation['bbox']
            box = np.zeros_like(instance.mask)
            box[top : top + height, left : left + width] = True
            assert not (instance.mask & ~box).any()
            inside = instance.mask[top : top + height, left : left + width]
            assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))


@pytest.mark.parametrize('split', list(FOLDERS))
def test_read_by_mmdet(data, split):
    from mmdet.datasets import CocoDataset
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = CocoDataset(
            data_root=str(data),
            ann_file=f'annotations/instances_{split}.json',
            data_prefix=dict(img=f'images/{FOLDERS[split]}/'),
            metainfo=dict(classes=CLASSES, palette=PALETTE),
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            ],
        )
        assert len(dataset) == PARAMETERS[split]
        samples = [dataset[i] for i in range(len(dataset))]
    for index, sample in enumerate(samples):
        scene = render_scene(index, split, PARAMETERS['size'], PARAMETERS['seed'])
        labels = [instance.label for instance in scene.instances]
        assert np.array_equal(sample['img'][..., ::-1], scene.image)
        assert sample['gt_bboxes_labels'].tolist() == labels
        assert not sample['gt_ignore_flags'].any()
        masks = np.stack([instance.mask for instance in scene.instances])
        assert np.array_equal(sample['gt_masks'].masks, masks)
        tight = sample['gt_masks'].get_bboxes('hbox')
        assert np.array_equal(tight.tensor, sample['gt_bboxes'].tensor)


@pytest.mark.parametrize('split', list(FOLDERS))
def test_read_by_mmseg(data, split):
    from mmengine.registry import DefaultScope
    from mmseg.datasets import BaseSegDataset

    folder = FOLDERS[split]
    with DefaultScope.overwrite_default_scope('mmseg'):
        dataset = BaseSegDataset(
            data_root=str(data),
            data_prefix=dict(img_path=f'images/{folder}', seg_map_path=f'annotations/{folder}'),
            img_suffix='.png',
            seg_map_suffix='.png',
            metainfo=dict(classes=CLASSES, palette=PALETTE),
            reduce_zero_label=True,
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='LoadAnnotations', reduce_zero_label=True),
            ],
        )
        assert len(dataset) == PARAMETERS[split]
        samples = [dataset[i] for i in range(len(dataset))]
    for index, sample in enumerate(samples):
        scene = render_scene(index, split, PARAMETERS['size'], PARAMETERS['seed'])
        expected = np.full(scene.image.shape[:2], 255)
        for instance in scene.instances:
            expected[instance.mask] = instance.label
        assert np.array_equal(sample['img'][..., ::-1], scene.image)
        assert np.array_equal(sample['gt_seg_map'], expected)


def test_existing_folder_is_reused(fresh):
    before = {path: path.stat().st_mtime_ns for path in fresh.rglob('*')}
    steps = []
    summary = _regenerate(fresh, progress=lambda *step: steps.append(step))
    assert summary['reused'] and not steps
    assert {path: path.stat().st_mtime_ns for path in fresh.rglob('*')} == before


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(train=2), 'train is 1, not 2'),
        (dict(val=2), 'val is 1, not 2'),
        (dict(size=(64, 65)), r'size is \[64, 64\], not \[64, 65\]'),
        (dict(seed=6), 'seed is 5, not 6'),
    ],
)
def test_other_parameters_are_named_and_forced(fresh, change, message):
    before = _hashes(fresh)
    with pytest.raises(ValueError, match=f'{message}.*--force'):
        _regenerate(fresh, **change)
    assert _hashes(fresh) == before
    assert not _regenerate(fresh, force=True, **change)['reused']
    assert _regenerate(fresh, **change)['reused']
    assert sorted(os.listdir(fresh.parent)) == ['.digit_scenes.lock', 'digit_scenes']


@pytest.mark.parametrize(
    'name',
    [
        'images/training/000001.png',
        'annotations/validation/000001.png',
        'annotations/instances_train.json',
    ],
)
def test_one_flipped_byte_is_found(fresh, name):
    before = _hashes(fresh)
    content = bytearray((fresh / name).read_bytes())
    content[len(content) // 2] ^= 1
    (fresh / name).write_bytes(content)
    for call in (_regenerate, digit_scenes.verify):
        with pytest.raises(ValueError, match=f'damaged: {name} was changed.*--force'):
            call(fresh)
    _regenerate(fresh, force=True)
    assert _hashes(fresh) == before


def test_missing_and_added_files_are_found(fresh):
    (fresh / 'images/training/000001.png').rename(fresh / 'images/training/000002.png')
    with pytest.raises(ValueError, match='000001.png is missing; .*000002.png does not belong'):
        digit_scenes.verify(fresh)


@pytest.mark.parametrize('force', [False, True])
@pytest.mark.parametrize('manifest', [None, '{"format": "another"}', '{"train'])
def test_foreign_folder_is_left_alone(tmp_path, force, manifest):
    root = tmp_path / 'digit_scenes'
    root.mkdir()
    (root / 'thesis.txt').write_text('mine')
    if manifest is not None:
        (root / 'digit_scenes.json').write_text(manifest)
    before = _hashes(root)
    with pytest.raises(FileExistsError, match='left as it is'):
        _regenerate(root, force=force)
    assert _hashes(root) == before
    assert os.listdir(tmp_path) == ['digit_scenes']


def test_force_keeps_files_of_others(fresh):
    (fresh / 'notes.txt').write_text('mine')
    assert _regenerate(fresh)['reused']
    with pytest.raises(FileExistsError, match='would be lost: notes.txt'):
        _regenerate(fresh, force=True)
    assert (fresh / 'notes.txt').read_text() == 'mine'


def test_verify_tells_how_to_make_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match='make_digit_scenes.py --out-dir .*absent'):
        digit_scenes.verify(tmp_path / 'absent')


def _interrupt(done: int, total: int) -> None:
    raise KeyboardInterrupt


def test_interruption_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        _regenerate(tmp_path / 'data' / 'digit_scenes', progress=_interrupt)
    assert os.listdir(tmp_path / 'data') == ['.digit_scenes.lock']


def test_interrupted_force_keeps_the_old_data(fresh):
    before = _hashes(fresh)
    with pytest.raises(KeyboardInterrupt):
        _regenerate(fresh, seed=6, force=True, progress=_interrupt)
    assert _hashes(fresh) == before


def test_failed_exchange_keeps_the_old_data(fresh, monkeypatch):
    before = _hashes(fresh)
    replace = os.replace

    def fail_once(source, target):
        if Path(target) == fresh:
            monkeypatch.undo()
            raise OSError('no')
        replace(source, target)

    monkeypatch.setattr(os, 'replace', fail_once)
    with pytest.raises(OSError, match='no'):
        _regenerate(fresh, seed=6, force=True)
    assert _hashes(fresh) == before


def test_killed_run_is_cleaned_up_by_the_next(tmp_path):
    root = tmp_path / 'digit_scenes'
    script = (
        'import os, signal; from attnpool_backbones.datasets import digit_scenes\n'
        f'digit_scenes.generate({str(root)!r}, 3, 1, 64, '
        'progress=lambda *step: os.kill(os.getpid(), signal.SIGKILL))'
    )
    killed = subprocess.run(
        [sys.executable, '-c', script],
        cwd=REPOSITORY,
        env={**os.environ, 'PYTHONPATH': str(REPOSITORY)},
    )
    assert killed.returncode == -9
    assert not root.exists()
    assert any('.partial-' in name for name in os.listdir(tmp_path))
    _regenerate(root)
    assert sorted(os.listdir(tmp_path)) == ['.digit_scenes.lock', 'digit_scenes']


def test_link_to_another_disk_stays_a_link(tmp_path):
    (tmp_path / 'disk').mkdir()
    (tmp_path / 'digit_scenes').symlink_to(tmp_path / 'disk', target_is_directory=True)
    _regenerate(tmp_path / 'digit_scenes')
    assert (tmp_path / 'digit_scenes').is_symlink()
    assert _regenerate(tmp_path / 'digit_scenes')['reused']


def test_progress_counts_all_scenes(tmp_path):
    steps = []
    digit_scenes.generate(tmp_path / 'a', 2, 1, 64, progress=lambda *step: steps.append(step))
    assert steps == [(1, 3), (2, 3), (3, 3)]


def test_manifest_tells_what_is_there(data):
    manifest = json.loads((data / 'digit_scenes.json').read_text())
    assert {key: manifest[key] for key in ('train', 'val', 'size', 'seed')} == {
        **PARAMETERS,
        'size': [96, 80],
    }
    assert manifest['files'] == {
        name: digest for name, digest in _hashes(data).items() if name != 'digit_scenes.json'
    }


def _command_line(monkeypatch, *arguments: str) -> int:
    script = REPOSITORY / 'tools/dataset_converters/make_digit_scenes.py'
    monkeypatch.setattr(sys, 'argv', [str(script), *arguments])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(script), run_name='__main__')
    return stop.value.code


def test_command_line(monkeypatch, tmp_path, capsys):
    root = tmp_path / 'scenes'
    arguments = ['--out-dir', str(root), '--train', '2', '--val', '1', '--size', '80', '64']
    assert _command_line(monkeypatch, *arguments, '--seed', '3') == 0
    assert 'written, 2 training scenes' in capsys.readouterr().out
    assert digit_scenes.verify(root, 2, 1, (80, 64), 3)['reused']
    assert _command_line(monkeypatch, *arguments, '--seed', '3') == 0
    assert 'verified' in capsys.readouterr().out
    assert _command_line(monkeypatch, *arguments, '--seed', '4') == 2
    assert 'seed is 3, not 4' in capsys.readouterr().err
    assert _command_line(monkeypatch, *arguments, '--seed', '4', '--force') == 0
    assert digit_scenes.verify(root)['seed'] == 4


def test_importing_the_data_set_imports_no_heavy_library():
    script = (
        'import sys, attnpool_backbones.datasets.digit_scenes\n'
        'print([m for m in ("mmdet", "mmseg", "sklearn", "pycocotools") '
        'if m in sys.modules])'
    )
    output = subprocess.run(
        [sys.executable, '-c', script],
        cwd=REPOSITORY,
        check=True,
        text=True,
        env={**os.environ, 'PYTHONPATH': str(REPOSITORY)},
        stdout=subprocess.PIPE,
    ).stdout
    assert output.strip() == '[]'
