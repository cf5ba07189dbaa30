"""Every kind of damage to a data set is found, all in one go, and a whole one passes."""

import json
import shutil
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
from attnpool_backbones.datasets.verification import Report, verify

DETECTION = config_root() / 'poolformer/mask-rcnn_poolformer-nano_slim-fpn_digit-scenes.py'
SEGMENTATION = config_root() / 'poolformer/upernet_poolformer-nano_slim_digit-scenes.py'
ADE = config_root() / 'poolformer/upernet_poolformer-s12_8xb2-160k_ade20k-512x512.py'
TRAIN = 'annotations/instances_train.json'


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
        cfg[f'{split}_dataloader'].dataset.data_root = str(root)
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
    'malformed polygon': lambda a: a.update(segmentation=[[1, 2, 3, 4]]),
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
