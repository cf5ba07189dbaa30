"""Every kind of damage to a data set is found, all in one go, and a whole one passes."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from attnpool_backbones.command_line import UserError
from attnpool_backbones.config_files import config_root
from attnpool_backbones.datasets.digit_scenes import generate
from attnpool_backbones.datasets.run_lengths import run_length_fault
from attnpool_backbones.datasets.sample_reading import Sample
from attnpool_backbones.datasets.verification import Report, verify

DETECTION = config_root() / 'poolformer/mask-rcnn_poolformer-nano_slim-fpn_digit-scenes.py'
SEGMENTATION = config_root() / 'poolformer/upernet_poolformer-nano_slim_digit-scenes.py'
ADE = config_root() / 'poolformer/upernet_poolformer-s12_8xb2-160k_ade20k-512x512.py'
BOXES = config_root() / 'poolformer/retinanet_poolformer-s12_fpn_1x_coco.py'
TRAIN, VAL = (f'annotations/instances_{split}.json' for split in ('train', 'val'))


@pytest.fixture(scope='module')
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('data') / 'digit_scenes'
    generate(root, train=5, val=2, size=64)
    return root


@pytest.fixture
def scenes(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / 'scenes')


def config(path: Path, root: Path) -> Config:
    cfg = Config.fromfile(path)
    for split in ('train', 'val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        dataset.data_root = str(root)
        if path == BOXES:
            scenes = Config.fromfile(DETECTION)[f'{split}_dataloader'].dataset
            dataset.update({k: scenes[k] for k in ('ann_file', 'data_prefix', 'metainfo')})
        if cfg.default_scope == 'mmdet' and split != 'train':
            cfg[f'{split}_evaluator'].ann_file = str(root / 'annotations/instances_val.json')
    return cfg


def found(report: Report) -> dict[str, list[str]]:
    kinds = {}
    for problem in report.problems:
        kinds.setdefault(problem.kind, []).append(f'{problem.split} {problem.item}')
    return kinds


@pytest.mark.parametrize('path', [DETECTION, SEGMENTATION], ids=['detection', 'segmentation'])
def test_a_whole_data_set_passes(path: Path, whole: Path) -> None:
    seen = []
    report = verify(config(path, whole), progress=lambda *x: seen.append(x))
    assert report.problems == ()
    # val and test are the same
    assert report.images == dict(train=5, val=2) and seen[-1] == (7, 7)


def test_images(scenes: Path) -> None:
    folder = scenes / 'images' / 'training'
    (folder / '000001.png').unlink()
    content = (folder / '000002.png').read_bytes()
    (folder / '000002.png').write_bytes(content[: len(content) // 2])
    (folder / '000003.png').write_bytes(b'')
    Image.new('RGB', (80, 60)).save(folder / '000004.png')
    kinds = found(verify(config(DETECTION, scenes)))
    assert kinds == {
        'missing image': [f'train {folder / "000001.png"}'],
        'unreadable image': [f'train {folder / name}' for name in ('000002.png', '000003.png')],
        'image of another size than annotated': [f'train {folder / "000004.png"}'],
    }


# What is wrong -> how to make an annotation or an image so.
DAMAGE = {
    'wrong class id': lambda a: a.update(category_id=99),
    'annotation without an image': lambda a: a.update(image_id=99),
    'malformed box': lambda a: a.update(bbox=[1, 2, 3]),
    'box of no area': lambda a: a.update(bbox=[3, 3, 0, 9]),
    'box outside the image': lambda a: a.update(bbox=[50, 50, 20, 5]),
    'mask of another size than its image': lambda a: a['segmentation'].update(size=[64, 60]),
    'polygon that is ignored': lambda a: a.update(segmentation=[[1, 2, 3, 4]]),
}


def test_annotations(scenes: Path) -> None:
    content = json.loads((scenes / TRAIN).read_text())
    broken = content['annotations']
    assert len(broken) > len(DAMAGE)
    for annotation, damage in zip(broken, DAMAGE.values(), strict=False):
        damage(annotation)
    broken[-1]['id'] = broken[-2]['id']
    content['images'].append(dict(content['images'][0]))
    content['images'].append(dict(id=77))
    content['categories'].pop()
    last = {a['id'] for a in broken if a['category_id'] == 10}
    (scenes / TRAIN).write_text(json.dumps(content))
    kinds = found(verify(config(DETECTION, scenes), splits=['train']))
    others = {
        'annotation id used more than once': [f'train {broken[-1]["id"]}'],
        'image id used more than once': ['train 1'],
        'image listed more than once': ['train 000001.png'],
        'class that the file does not have': ['train nine'],
    }
    assert kinds.pop('malformed image entry') == ["train {'id': 77}"]
    assert {kind: kinds.pop(kind) for kind in others} == others
    assert set(kinds) == set(DAMAGE)
    assert len(kinds.pop('wrong class id')) == len(last) + 1
    for kind, items in kinds.items():
        annotation = broken[list(DAMAGE).index(kind)]
        assert items == [f'train annotation {annotation["id"]} of image {annotation["image_id"]}']


MALFORMED = 'malformed annotation entry'
POLYGON = [2, 2, 2, 20, 20, 20]
# What is wrong -> how to make an annotation so, the kind of problem, part of the detail.
FLAWS = {
    'flat polygon': (dict(segmentation=POLYGON), 'malformed polygon', '2, not a list'),
    'text in a polygon': (dict(segmentation=[[*POLYGON, 1, 'a']]), 'malformed polygon', "'a', not"),
    'null in a polygon': (dict(segmentation=[[None, *POLYGON, 1]]), 'malformed polygon', 'None'),
    'second polygon': (dict(segmentation=[POLYGON, []]), 'polygon that is ignored', 'at least six'),
    'segmentation a text': (dict(segmentation='a'), 'malformed mask', "'a', not polygons"),
    'no mask': (dict(segmentation=[]), MALFORMED, 'segmentation [], not polygons or RLE'),
    'class id a list': (dict(category_id=[1]), MALFORMED, 'category_id [1], not a number'),
    'class id null': (dict(category_id=None), MALFORMED, 'category_id None'),
    'image id a list': (dict(image_id=[1]), MALFORMED, 'image_id [1], not a number or a text'),
    'image id a dict': (dict(image_id={}), MALFORMED, 'image_id {}'),
    'id null': (dict(id=None), MALFORMED, 'id None, not a number or a text'),
    'area a text': (dict(area='9'), MALFORMED, "area '9', not a number"),
    'area of zero': (dict(area=0), 'annotation of no area', 'area 0'),
    'box with a text': (dict(bbox=[1, 2, '3', 4]), 'malformed box', "'3'"),
    'box with infinity': (dict(bbox=[1, 2, float('inf'), 4]), 'malformed box', 'inf'),
    'box with a long number': (dict(bbox=[1, 2, 10**400, 4]), 'malformed box', '[x, y'),
    'box a dict': (dict(bbox={}), 'malformed box', '{}'),
    'size a number': (dict(segmentation=dict(size=5, counts=[4096])), 'mask of another', '5, not'),
    'no counts': (dict(segmentation=dict(size=[64, 64])), 'malformed mask', 'NoneType'),
    'runs too short': (
        dict(segmentation=dict(size=[64, 64], counts=[9, 80])),
        'malformed mask',
        'counts of 89 pixels in all, not 4096',
    ),
    'runs too long': (
        dict(segmentation=dict(size=[64, 64], counts=[9, 4096])),
        'malformed mask',
        'counts of 4105 pixels',
    ),
    'a negative run': (
        dict(segmentation=dict(size=[64, 64], counts=[-4, 4100])),
        'malformed mask',
        '-4 in counts, not a number from 0 on',
    ),
    'a text among the runs': (
        dict(segmentation=dict(size=[64, 64], counts=['a', 4100])),
        'malformed mask',
        "'a' in counts",
    ),
    'no runs': (dict(segmentation=dict(size=[64, 64], counts='')), 'malformed mask', 'of 0 pixels'),
    'no code': (
        dict(segmentation=dict(size=[64, 64], counts='ä')),
        'malformed mask',
        "cannot be decoded: 'ä'",
    ),
    'cut code': (
        dict(segmentation=dict(size=[64, 64], counts='P')),
        'malformed mask',
        'end within a number',
    ),
    **{
        f'without {name}': (name, MALFORMED, f'without {name}')
        for name in ('id', 'image_id', 'category_id', 'area', 'segmentation', 'iscrowd')
    },
}


def damage(annotation: dict, flaw: dict | str) -> None:
    if isinstance(flaw, str):
        del annotation[flaw]
    else:
        annotation.update(flaw)


def report_on(scenes: Path, content: object, cfg: Config | None = None, split='val') -> Report:
    (scenes / TRAIN.replace('train', split)).write_text(json.dumps(content))
    return verify(cfg or config(DETECTION, scenes))


@pytest.mark.parametrize('name', FLAWS)
def test_a_flaw_of_an_annotation_is_one_problem(name: str, scenes: Path) -> None:
    flaw, kind, detail = FLAWS[name]
    content = json.loads((scenes / VAL).read_text())
    damage(content['annotations'][1], flaw)
    (problem,) = report_on(scenes, content).problems
    assert problem.kind.startswith(kind) and detail in problem.detail and problem.split == 'val'
    named = 'annotations[1]' if name in ('id null', 'without id') else 'annotation 2 of image '
    assert problem.item.startswith(named)


def test_all_flaws_are_told_at_once(scenes: Path) -> None:
    content = json.loads((scenes / VAL).read_text())
    first = content['annotations'][0]
    content['annotations'] = [dict(first, id=i + 1) for i in range(len(FLAWS))]
    for annotation, (flaw, _, _) in zip(content['annotations'], FLAWS.values(), strict=True):
        damage(annotation, flaw)
    content['annotations'] += ['an annotation', None]
    problems = report_on(scenes, content).problems
    assert len(problems) == len(FLAWS) + 2
    assert [p.item for p in problems[-2:]] == [f'annotations[{len(FLAWS) + i}]' for i in (0, 1)]


# How to change a whole file -> the problems: kind, item or detail.
FILES = {
    'images without dicts': (
        lambda c: c['images'].append(3),
        [('malformed image entry', 'images[2]', '3, not a dict')],
    ),
    'categories without dicts': (
        lambda c: c['categories'].append('ten'),
        [('malformed category entry', 'categories[10]', "'ten', not a dict")],
    ),
    'category id a list': (
        lambda c: c['categories'].append(dict(id=[1], name='ten')),
        [('malformed category entry', "{'id': [1], 'name': 'ten'}", 'id [1], not a number')],
    ),
    'category name a list': (
        lambda c: c['categories'].append(dict(id=11, name=['ten'])),
        [('malformed category entry', "{'id': 11", "name ['ten'], not a text")],
    ),
    'category id twice': (
        lambda c: c['categories'].append(dict(id=1, name='zero')),
        [('category id used more than once', '1', '2 times')],
    ),
    'category twice': (
        lambda c: c['categories'].append(dict(id=11, name='zero')),
        [('category listed more than once', 'zero', '2 times')],
    ),
    'width a text': (
        lambda c: c['images'][0].update(width='64'),
        [('malformed image entry', "{'id': 1", "width '64', not a number")],
    ),
    'height null': (
        lambda c: c['images'][0].update(height=None),
        [('malformed image entry', "{'id': 1", 'height None, not a number')],
    ),
    'file name null': (
        lambda c: c['images'][0].update(file_name=None),
        [('malformed image entry', "{'id': 1", 'file_name None, not a text')],
    ),
    'annotation id twice': (
        lambda c: c['annotations'][1].update(id=1),
        [('annotation id used more than once', '1', '2 times')],
    ),
    'no images': (
        lambda c: c.update(images=[], annotations=[]),
        [('no images', 'instances_train.json', ''), ('no annotations', '', '')],
    ),
    'images a dict': (
        lambda c: c.update(images={}),
        [('damaged annotation file', 'instances_train.json', 'images {}, no list')],
    ),
    'no categories': (
        lambda c: c.pop('categories'),
        [('damaged annotation file', 'instances_train.json', 'categories')],
    ),
}


@pytest.mark.parametrize('name', FILES)
def test_a_flaw_of_a_file(name: str, scenes: Path) -> None:
    change, expected = FILES[name]
    content = json.loads((scenes / TRAIN).read_text())
    content['images'] = content['images'][:2]
    content['annotations'] = [a for a in content['annotations'] if a['image_id'] <= 2]
    change(content)
    problems = report_on(scenes, content, split='train').problems
    for problem, (kind, item, detail) in zip(problems, expected, strict=True):
        assert problem.kind == kind and item in problem.item and detail in problem.detail


# What mmdet can do without, under which conditions.
FINE = {
    'iscrowd, where nothing is scored': ('train', DETECTION, 'iscrowd'),
    'iscrowd of no class': ('val', DETECTION, dict(category_id=11, iscrowd=None)),
    'masks, where none are loaded': ('train', BOXES, 'segmentation'),
    'masks, where none are scored': ('val', BOXES, 'segmentation'),
    'the area of what is left out': ('train', DETECTION, dict(ignore=1, area=None)),
    'the mask of what is left out': ('train', DETECTION, dict(ignore=1, segmentation=None)),
    'polygons': ('val', DETECTION, dict(segmentation=[POLYGON, [1.5, 1, 1, 2.5, 2, 2, 2, 1]])),
    'runs as a list': ('val', DETECTION, dict(segmentation=dict(size=[64, 64], counts=[4095, 1]))),
    'an id as a text': ('train', DETECTION, dict(id='a')),
}


@pytest.mark.parametrize('name', FINE)
def test_what_is_fine_for_mmdet_passes(name: str, scenes: Path) -> None:
    from mmdet.registry import DATASETS
    from mmdet.utils import register_all_modules

    split, path, change = FINE[name]
    content = json.loads((scenes / TRAIN.replace('train', split)).read_text())
    content['categories'].append(dict(id=11, name='ten'))
    damage(content['annotations'][0], change)
    cfg = config(path, scenes)
    assert report_on(scenes, content, cfg, split).problems == ()
    register_all_modules()
    built = DATASETS.build(cfg[f'{split}_dataloader'].dataset)
    assert all(built[i] is not None for i in range(len(built)))


def test_masks_that_are_only_scored_are_missed(scenes: Path) -> None:
    content = json.loads((scenes / VAL).read_text())
    del content['annotations'][0]['segmentation']
    cfg = config(BOXES, scenes)
    for split in ('val', 'test'):
        cfg[f'{split}_evaluator'].metric = ['bbox', 'segm']
    (problem,) = report_on(scenes, content, cfg).problems
    assert problem.detail == 'without segmentation'


def test_runs_are_read_as_pycocotools_does() -> None:
    from pycocotools import mask

    random = np.random.default_rng(0)
    for share in (0, 0.01, 0.5, 0.99, 1):
        pixels = np.asfortranarray(random.random((70, 90)) < share, dtype=np.uint8)
        counts = mask.encode(pixels)['counts'].decode()
        assert run_length_fault(counts, 70 * 90) == ''
        assert 'counts' in run_length_fault(counts, 70 * 91)
        assert 'counts' in run_length_fault(counts[:-1], 70 * 90)


def test_a_box_may_be_rounded(scenes: Path) -> None:
    content = json.loads((scenes / TRAIN).read_text())
    content['annotations'][0]['bbox'] = [-0.5, 0, 64.9, 64]
    (scenes / TRAIN).write_text(json.dumps(content))
    assert verify(config(DETECTION, scenes)).problems == ()


def test_a_damaged_annotation_file(scenes: Path) -> None:
    (scenes / TRAIN).write_text('{"images": [')
    assert found(verify(config(DETECTION, scenes))) == {
        'damaged annotation file': [f'train {scenes / TRAIN}']
    }


def test_label_maps(scenes: Path) -> None:
    folder = scenes / 'annotations' / 'training'
    (folder / '000001.png').unlink()
    Image.new('L', (64, 32)).save(folder / '000002.png')
    Image.new('RGB', (64, 64)).save(folder / '000003.png')
    labels = np.zeros((64, 64), np.uint8)
    labels[0, :3] = 10, 11, 255  # the last class, no class, ignored
    Image.fromarray(labels).save(folder / '000004.png')
    Image.new('L', (64, 64)).save(folder / 'more.png')
    (folder / '000005.png').write_bytes(b'no picture')
    report = verify(config(SEGMENTATION, scenes))
    assert found(report) == {
        'mask without an image': [f'train {folder / "more.png"}'],
        'missing mask': [f'train {folder / "000001.png"}'],
        'mask of another size than its image': [f'train {folder / "000002.png"}'],
        'mask with several channels': [f'train {folder / "000003.png"}'],
        'mask with labels of no class': [f'train {folder / "000004.png"}'],
        'unreadable mask': [f'train {folder / "000005.png"}'],
    }
    (labels_of_no_class,) = (p for p in report.problems if 'labels' in p.kind)
    assert labels_of_no_class.detail == '[11], not in 0..10'


def test_labels_that_the_losses_or_the_metrics_ignore(scenes: Path) -> None:
    cfg = config(SEGMENTATION, scenes)
    cfg.model.decode_head.ignore_index = 11
    cfg.model.auxiliary_head = [dict(cfg.model.decode_head)]
    paths = [min((scenes / 'annotations' / name).iterdir()) for name in ('training', 'validation')]
    for path in paths:
        labels = np.asarray(Image.open(path)).copy()
        labels[0, :2] = 0, 11
        Image.fromarray(labels).save(path)
    assert found(verify(cfg)) == {'mask with labels of no class': [f'val {paths[1]}']}
    cfg.val_evaluator.ignore_index = 11
    assert verify(cfg).problems == ()
    labels[0, 0] = 255
    for path in paths:
        Image.fromarray(labels).save(path)
    assert found(verify(cfg)) == {'mask with labels of no class': [f'train {paths[0]}']}


def test_labels_of_ade_count_from_one(tmp_path: Path) -> None:
    for split in ('training', 'validation'):
        for kind in ('images', 'annotations'):
            (tmp_path / kind / split).mkdir(parents=True)
        Image.new('RGB', (8, 8)).save(tmp_path / 'images' / split / 'a.jpg')
        labels = np.full((8, 8), 150, np.uint8)
        labels[0, 0] = 0
        Image.fromarray(labels).save(tmp_path / 'annotations' / split / 'a.png')
    cfg = config(ADE, tmp_path)
    assert verify(cfg).problems == ()
    for step in cfg.train_dataloader.dataset.pipeline:
        if step.type == 'LoadAnnotations':
            step.reduce_zero_label = False
    assert list(found(verify(cfg))) == ['reduce_zero_label differs']


def test_processes_find_the_same(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (scenes / 'images' / 'training' / '000002.png').write_bytes(b'')
    monkeypatch.setattr('attnpool_backbones.datasets.verification.CHUNK', 2)
    cfg = config(DETECTION, scenes)
    assert verify(cfg, workers=2) == verify(cfg, workers=1)


def test_pixels_are_limited_as_the_config_says(scenes: Path) -> None:
    cfg = config(DETECTION, scenes)
    cfg.max_pixels = 64 * 64
    assert verify(cfg).problems == ()
    cfg.max_pixels -= 1
    kinds = found(verify(cfg))
    assert list(kinds) == ['image too large'] and len(kinds['image too large']) == 7


def test_a_process_that_dies_is_a_message(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(sample: Sample) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr('attnpool_backbones.datasets.verification.CHUNK', 2)
    monkeypatch.setattr('attnpool_backbones.datasets.verification.read_sample', die)
    with pytest.raises(UserError, match=r'was killed, .* out of memory'):
        verify(config(DETECTION, scenes), workers=2)


def test_missing_files_are_a_message(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='instances_train.json'):
        verify(config(DETECTION, tmp_path / 'nowhere'))


def test_as_a_command(scenes: Path, repo_root: Path, tmp_path: Path) -> None:
    tool = [sys.executable, str(repo_root / 'tools' / 'misc' / 'verify_dataset.py')]
    options = [f'{s}_dataloader.dataset.data_root={scenes}' for s in ('train', 'val', 'test')]
    options += [
        f'{s}_evaluator.ann_file={scenes}/annotations/instances_val.json' for s in ('val', 'test')
    ]
    (scenes / 'images' / 'training' / '000002.png').unlink()
    done = subprocess.run(
        [*tool, str(DETECTION), '--json', 'report.json', '--cfg-options', *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    assert 'missing image' in done.stdout and '1 problems' in done.stdout
    report = json.loads((tmp_path / 'report.json').read_text())
    assert report['counts'] == {'missing image': 1} and report['images'] == dict(train=5, val=2)
