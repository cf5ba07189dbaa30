"""What predictions of large images need in memory, and that it changes nothing."""

import copy
import gc
import pickle
import time
import tracemalloc
import weakref
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from attnpool_backbones.command_line import UserError
from attnpool_backbones.inference.prediction import Detections
from attnpool_backbones.inference.predictor import Options, Predictor


def test_run_lengths_of_many_masks_need_the_memory_of_one():
    from pycocotools import mask as coco_mask

    masks = np.random.default_rng(0).random((40, 1, 300)) > 0.5
    masks = np.repeat(masks, 200, 1)
    found = Detections('', 200, 300, ['a'], *(np.zeros((40, 4)), *np.zeros((2, 40), int)), masks)
    tracemalloc.start()
    coded = found.run_lengths()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < masks.nbytes / 4
    expected = coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8)))
    assert [mask['counts'].encode() for mask in coded] == [mask['counts'] for mask in expected]
    assert all(mask['size'] == [200, 300] for mask in coded)
    assert found.select(np.zeros(40, bool)).run_lengths() == []


class Output:
    """Scores two classes by the red of a pixel, and finds an object at the corner of an image."""

    def __init__(self, image):
        red = image[2].float()
        self.seg_logits = SimpleNamespace(data=torch.stack([red, 255 - red]))
        self.pred_instances, self.ori_shape = self, image.shape[1:]
        self.scores, self.labels = torch.tensor([0.9]), torch.tensor([0])
        self.bboxes = torch.tensor([[1.0, 1, 4, 4]])
        self.masks = torch.zeros(1, *self.ori_shape, dtype=torch.bool)
        self.masks[:, 1:4, 1:4] = True

    def __contains__(self, name):
        return name == 'masks'

    def __getitem__(self, keep):
        return self


def prepared(data):
    return dict(
        inputs=torch.from_numpy(data['img']).permute(2, 0, 1), data_samples=SimpleNamespace()
    )


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.outputs, self.alive = [], []

    def test_step(self, data):
        gc.collect()
        self.alive.append(sum(output() is not None for output in self.outputs))
        outputs = [Output(image) for image in data['inputs']]
        for sample, output in zip(data['data_samples'], outputs, strict=True):
            sample.output = output  # mmdet's and mmseg's outputs are the samples of the inputs
        self.outputs += map(weakref.ref, outputs)
        return outputs


class Noting(nn.Module):
    """Notes the image that it sees, and looks at the note later."""

    def test_step(self, data):
        (self.seen,) = data['inputs']
        time.sleep(0.01)
        return [Output(self.seen)]


@pytest.mark.parametrize('change', [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_threads_get_the_predictions_of_their_own_images(change):
    predictor = change(Predictor(Noting(), prepared, ['red', 'other'], None, True, 'cpu'))
    images = [np.zeros((8, 10 + width, 3), np.uint8) for width in range(8)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda image: next(predictor(image)), images))
    assert [one.masks.shape[1:] for one in found] == [image.shape[:2] for image in images]


@pytest.mark.parametrize(
    'option, words',
    [
        (dict(batch=0), 'batch=0: it has to be a whole number from 1 on'),
        (dict(threads=-1), 'threads=-1: it has to be a whole number from 0 on'),
        (dict(side=0), 'side=0: it has to be a whole number from 1 on'),
        (dict(side=10, overlap=1), 'overlap=1: it has to be a share from 0 to below 1'),
        (dict(side=10, overlap=-0.2), r'overlap=-0\.2: it has to be a share'),
        (dict(classes='red'), "classes='red': it has to be a list of names"),
    ],
)
def test_options_that_cannot_be_meant(option, words):
    with pytest.raises(UserError, match=words):
        Options(**option)


def test_slices_are_resized_as_the_model_goes_on():
    pytest.importorskip('sahi')
    alive = []

    def prepare(data):
        made = prepared(data)
        alive.append(weakref.ref(made['inputs']))
        most.append(sum(image() is not None for image in alive))
        return made

    most = []
    image = np.zeros((120, 120, 3), np.uint8)
    predictor = Predictor(Model(), prepare, ['red', 'other'], None, True, 'cpu')
    (found,) = predictor(image, side=10, batch=16)
    assert len(alive) > 200 and len(found) == len(alive) and max(most) <= 100


@pytest.mark.parametrize('is_detector', [True, False])
def test_outputs_of_slices_do_not_wait_for_the_last_one(is_detector):
    pytest.importorskip('sahi')
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    model = Model()
    predictor = Predictor(model, prepared, ['red', 'other'], None, is_detector, 'cpu')
    (found,) = predictor(image, side=10, batch=2, overlap=0.2)
    assert len(model.outputs) > 20 and max(model.alive) <= 2
    if is_detector:
        assert len(found) == len(model.outputs) and np.asarray(found.masks).sum() == 9 * len(found)
    else:
        assert np.array_equal(found.label_map, image[..., 2] < 127.5)
