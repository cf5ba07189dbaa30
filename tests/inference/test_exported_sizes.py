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
    """A file of two images at once."""
    path = tmp_path_factory.mktemp('exported') / 'model.onnx'
    options = ['--size', '64', '96', '--batch', '2', '--images', str(photos), '--out', str(path)]
    assert main(['export', str(detector), *options]) == 0
    return path


@pytest.mark.parametrize('batch', [1, 2, 3])
def test_any_number_of_images(file, photos, batch):
    model = load(file)
    (one,) = model(photos / 'a.png', score=0.0)
    others = list(model([str(photos / 'a.png')] * 3, score=0.0, batch=batch))
    assert len(one) and len(others) == 3
    for other in others:
        assert np.allclose(one.boxes, other.boxes, atol=1e-3)
