"""Images in one folder a class, and the transforms of classification."""

import cv2
import numpy as np
import pytest
import torch

from attnpool_backbones.datasets import ClassFolders, PackImage, RandomResizedCrop, ShortSide


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'train' / '.ipynb_checkpoints').mkdir(parents=True)
    for name, colour in (('b', (255, 0, 0)), ('a', (0, 0, 255))):
        (tmp_path / 'train' / name).mkdir(parents=True)
        for index in range(2):
            image = np.full((40, 60, 3), colour, np.uint8)
            cv2.imwrite(str(tmp_path / 'train' / name / f'{index}.png'), image)
        (tmp_path / 'train' / name / 'notes.txt').write_text('no image')
    return tmp_path


def test_labels_are_the_sorted_folders(folder):
    pipeline = [dict(type='LoadImageFromFile'), dict(type='attnpool_backbones.PackImage')]
    dataset = ClassFolders(str(folder), dict(img='train'), pipeline=pipeline)
    assert dataset.metainfo['classes'] == ('a', 'b')
    assert [sample['labels'] for sample in dataset] == [0, 0, 1, 1]
    # red first
    assert dataset[0]['inputs'][:, 0, 0].tolist() == [255, 0, 0]
    for given in (dict(classes=['b']), dict(metainfo=dict(classes=['b']))):
        only = ClassFolders(str(folder), dict(img='train'), **given)
        assert len(only) == 2 and only.get_data_info(0)['gt_label'] == 0
        assert only.metainfo['classes'] == ('b',)


@pytest.mark.parametrize(
    'given, classes',
    [
        (dict(classes='cat'), ('cat',)),
        (dict(metainfo=dict(classes='cat')), ('cat',)),
        (dict(metainfo=dict(classes='{root}/classes.txt')), ('dog', 'cat')),
    ],
)
def test_classes_as_a_text(given, classes, tmp_path):
    for name in ('cat', 'dog', 'c'):
        (tmp_path / 'train' / name).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / 'train' / name / 'a.png'), np.zeros((4, 4, 3), np.uint8))
    (tmp_path / 'classes.txt').write_text('dog\ncat\n')
    if 'metainfo' in given:
        given = dict(metainfo=dict(classes=given['metainfo']['classes'].format(root=tmp_path)))
    dataset = ClassFolders(str(tmp_path), dict(img='train'), **given)
    assert dataset.metainfo['classes'] == classes and len(dataset) == len(classes)


def test_numbers_are_labels_by_value(tmp_path):
    """ImageNet-V2's folders are 0 to 999: as words, 10 would come before 2."""
    for name in ('10', '2', '0'):
        (tmp_path / 'val' / name).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / 'val' / name / 'a.png'), np.zeros((4, 4, 3), np.uint8))
    dataset = ClassFolders(str(tmp_path), dict(img='val'))
    assert dataset.metainfo['classes'] == ('0', '2', '10')


@pytest.mark.parametrize('empty', [False, True])
def test_no_images(empty, tmp_path):
    if empty:
        (tmp_path / 'train' / 'a').mkdir(parents=True)
    message = 'no image in the folders of its classes' if empty else 'is no folder'
    with pytest.raises(ValueError, match=message):
        ClassFolders(str(tmp_path), dict(img='train'))


@pytest.mark.parametrize('size', [(50, 80), (300, 20), (1, 1)])
def test_random_crops_lie_in_the_image(size):
    crop = RandomResizedCrop(16)
    for _ in range(50):
        top, left, height, width = crop._part(*size)
        assert 0 <= top <= top + height <= size[0] and 0 <= left <= left + width <= size[1]
        assert height > 0 and width > 0
    result = crop(dict(img=np.zeros((*size, 3), np.uint8)))
    assert result['img'].shape == (16, 16, 3) and result['img_shape'] == (16, 16)


def test_random_crops_vary_in_area_and_shape():
    np.random.seed(0)
    crop = RandomResizedCrop(16, area=(0.25, 0.5))
    parts = np.array([crop._part(100, 100) for _ in range(200)])
    areas, ratios = parts[:, 2] * parts[:, 3] / 1e4, parts[:, 3] / parts[:, 2]
    assert 0.24 < areas.min() < 0.3 and 0.45 < areas.max() < 0.51
    assert 0.73 < ratios.min() < 0.8 and 1.25 < ratios.max() < 1.36


@pytest.mark.parametrize(('size', 'scaled'), [((40, 60), (32, 48)), ((90, 30), (96, 32))])
def test_shorter_side(size, scaled):
    result = ShortSide(32)(dict(img=np.zeros((*size, 3), np.uint8)))
    assert result['img'].shape[:2] == result['img_shape'] == scaled


def test_pack():
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    sample = PackImage()(dict(img=image, gt_label=7))
    assert sample['inputs'].dtype == torch.uint8 and sample['labels'] == 7
    assert torch.equal(sample['inputs'], torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1))
