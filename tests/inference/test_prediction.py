"""What predictions of large images need in memory, and that it changes nothing."""

import gc
import tracemalloc
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from attnpool_backbones.inference.prediction import Detections
from attnpool_backbones.inference.predictor import Predictor


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


@pytest.mark.parametrize('is_detector', [True, False])
def test_outputs_of_slices_do_not_wait_for_the_last_one(is_detector):
    pytest.importorskip('sahi')
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    model = Model()
    predictor = Predictor(
        model,
        lambda data: dict(
            inputs=torch.from_numpy(data['img']).permute(2, 0, 1), data_samples=SimpleNamespace()
        ),
        ['red', 'other'], None, is_detector, 'cpu',
    )  # fmt: skip
    (found,) = predictor(image, side=10, batch=2, overlap=0.2)
    assert len(model.outputs) > 20 and max(model.alive) <= 2
    if is_detector:
        assert len(found) == len(model.outputs) and np.asarray(found.masks).sum() == 9 * len(found)
    else:
        assert np.array_equal(found.label_map, image[..., 2] < 127.5)
