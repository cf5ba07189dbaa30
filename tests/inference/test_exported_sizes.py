"""``attnpool export --size``: files of one size take images of any shape and any number."""

import cv2
import numpy as np
import pytest

pytest.importorskip('mmdet')
pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')

from attnpool_backbones.cli import main
from attnpool_backbones.inference import load


@pytest.fixture(scope='module')
def photos(scenes, tmp_path_factory):
    """A landscape, a portrait and a small image."""
    folder = tmp_path_factory.mktemp('photos')
    image = cv2.imread(str(scenes / 'images/validation/000001.png'))
    for name, turned in dict(a=image, b=np.rot90(image), c=image[:40, :50]).items():
        cv2.imwrite(str(folder / f'{name}.png'), turned)
    return folder


@pytest.fixture(scope='module')
def file(detector, photos, tmp_path_factory):
    """A file of two portraits at once; calibrated on all photos."""
    path = tmp_path_factory.mktemp('exported') / 'model.onnx'
    options = ['--size', '96', '64', '--batch', '2', '--images', str(photos), '--int8']
    assert main(['export', str(detector), *options, '--out', str(path)]) == 0
    return path


@pytest.mark.parametrize('batch', [1, 2, 3])
def test_any_number_of_images(file, photos, batch):
    model = load(file)
    (one,) = model(photos / 'a.png', score=0.0)
    others = list(model([str(photos / 'a.png')] * 3, score=0.0, batch=batch))
    assert len(one) and len(others) == 3
    for other in others:
        assert np.allclose(one.boxes, other.boxes, atol=1e-3)
        assert np.array_equal(one.labels, other.labels)
        assert np.array_equal(one.masks, other.masks)


def test_images_of_any_shape(file, photos):
    found = list(load(file)(photos, score=0.0))
    assert all(map(len, found))
    shapes = {p.name: (p.height, p.width, *p.masks.shape[1:]) for p in found}
    assert shapes == {'a.png': (64, 96) * 2, 'b.png': (96, 64) * 2, 'c.png': (40, 50) * 2}


def test_a_test_takes_images_of_any_shape(file, detector, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(['test', str(file), str(detector)]) == 0
    assert 'coco/bbox_mAP: ' in capfd.readouterr().out
