"""The quickstart's pictures show what a model predicts, as `attnpool predict` draws it."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from attnpool_backbones.analysis.drawing import write_figure
from attnpool_backbones.class_colours import distinct_colours
from attnpool_backbones.datasets.digit_scenes import generate
from attnpool_backbones.experiments.prediction_pictures import DRAWN_SIZE, predictions_picture
from attnpool_backbones.experiments.quickstart import predictor_of_run
from attnpool_backbones.inference.loading import load_model
from tests.inference.conftest import save_run


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp('pictures') / 'digit_scenes'
    generate(root, train=2, val=2, size=(96, 96))
    return root


def predictor(scenes, folder, head):
    model, cfg, classes = load_model(save_run(scenes, folder, head))
    dataset = SimpleNamespace(metainfo=dict(classes=classes))
    loader = SimpleNamespace(dataset=dataset)
    return predictor_of_run(SimpleNamespace(model=model, cfg=cfg, val_dataloader=loader))


def files(scenes, kind):
    return sorted((scenes / kind / 'validation').glob('*.png'))


def rows(figure, columns):
    """Returns title -> the images of a row."""
    cells = [(axes.get_title(), axes.get_images()[0].get_array()) for axes in figure.axes]
    return {
        cells[start][0]: [np.asarray(image) for _, image in cells[start : start + columns]]
        for start in range(0, len(cells), columns)
    }


def test_of_a_detector(scenes, tmp_path):
    model = predictor(scenes, tmp_path / 'run', 'mask-rcnn')
    images = files(scenes, 'images')
    drawn = rows(predictions_picture(model, images, score=0.01), 2)
    assert list(drawn) == ['image', 'prediction']
    for image, after in zip(drawn['image'], drawn['prediction'], strict=True):
        assert image.shape == after.shape == (DRAWN_SIZE, DRAWN_SIZE, 3)
        (found,) = model(np.ascontiguousarray(image[..., ::-1]), score=0.01)
        assert len(found)
        left, top, right, bottom = found.boxes[0].round().astype(int)
        edge = after[top:bottom, min(left, DRAWN_SIZE - 1)]
        colour = distinct_colours(len(model.classes))[found.labels[0]]
        assert (edge == colour).all(-1).mean() > 0.5  # the rest is below other labels
    # an untrained model is sure of nothing
    unsure = rows(predictions_picture(model, images), 2)
    assert np.array_equal(unsure['prediction'], unsure['image'])


def test_of_a_segmentor(scenes, tmp_path):
    model = predictor(scenes, tmp_path / 'run', 'upernet')
    images, label_maps = files(scenes, 'images'), files(scenes, 'annotations')
    drawn = rows(predictions_picture(model, images, label_maps), 2)
    assert list(drawn) == ['image', 'truth', 'prediction']
    predictions = [found.label_map for found in model([str(file) for file in images])]
    truths = [np.array(Image.open(file)) for file in label_maps]
    for row, maps in (('truth', truths), ('prediction', predictions)):
        for image, after, label_map in zip(drawn['image'], drawn[row], maps, strict=True):
            assert after.shape == image.shape == (96, 96, 3)
            expected = cv2.addWeighted(image, 0.45, model.palette[label_map], 0.55, 0)
            assert np.array_equal(after, expected)
    objects = np.stack(truths) > 0
    moved = np.abs(np.stack(drawn['truth']).astype(int) - np.stack(drawn['image'])).max(-1)
    assert objects.any() and (moved[objects] > 0).mean() > 0.9


def test_a_picture_is_whole_or_not_there(scenes, tmp_path, monkeypatch):
    model = predictor(scenes, tmp_path / 'run', 'upernet')
    figure = predictions_picture(model, files(scenes, 'images'))
    path = tmp_path / 'pictures' / 'segmentation.png'
    write_figure(figure, path)
    assert cv2.imread(str(path)).std() > 5
    before = path.read_bytes()

    def fail(*_):
        raise OSError('no space')

    monkeypatch.setattr('attnpool_backbones.atomic_files.os.replace', fail)
    with pytest.raises(OSError, match='no space'):
        write_figure(predictions_picture(model, files(scenes, 'images')[:1]), path)
    assert path.read_bytes() == before and len(list(path.parent.iterdir())) == 1
