"""Tag mAP, pointing game and mask IoU against plain computations."""

import numpy as np
import pytest
import torch
from mmdet.structures.mask import BitmapMasks
from sklearn.metrics import average_precision_score
from torch.nn import functional

from attnpool_backbones.evaluation import ImageTagMetric, LocalisationMetric
from attnpool_backbones.evaluation.localisation_metric import THRESHOLDS, localise, overlaps
from attnpool_backbones.evaluation.tag_metric import average_precision


@pytest.mark.parametrize('seed', range(5))
def test_average_precision_is_that_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    positive = rng.random(50) < 0.3
    scores = rng.integers(0, 8, 50) / 8 if seed % 2 else rng.random(50)  # with ties and without
    expected = average_precision_score(positive, scores)
    assert average_precision(torch.tensor(scores), torch.tensor(positive)) == pytest.approx(
        expected
    )


def tagged(scores, labels, **more):
    return dict(
        pred_tags=dict(scores=torch.tensor(scores)),
        gt_instances=dict(labels=torch.tensor(labels)),
        **more,
    )


def test_tag_metric():
    metric = ImageTagMetric(classwise=True)
    metric.dataset_meta = dict(classes=('a', 'b', 'c'))
    metric.process(None, [tagged([0.9, 0.1, 0.0], [0]), tagged([0.2, 0.8, 0.0], [0, 1])])
    metric.process(
        None,
        # a crowd of b counts neither way
        [tagged([0.3, 0.9, 0.0], [], ignored_instances=dict(labels=torch.tensor([1])))],
    )
    found = metric.evaluate(3)
    assert found['tags/AP_b'] == pytest.approx(100)
    assert found['tags/AP_a'] == pytest.approx(100 * (1 / 2 + 2 / 3 / 2))
    assert found['tags/mAP'] == pytest.approx((found['tags/AP_a'] + found['tags/AP_b']) / 2)
    assert 'tags/AP_c' not in found


def test_overlaps_are_those_of_each_threshold():
    values, mask = torch.randn(9, 11), torch.rand(9, 11) < 0.3
    found = overlaps(values, mask)
    clipped = values.clamp(min=0) / values.max()
    assert len(found) == len(THRESHOLDS) and THRESHOLDS[0] < 0.001 and THRESHOLDS[-1] > 0.7
    for i, threshold in enumerate(THRESHOLDS):
        above = clipped >= threshold
        expected = (above & mask).sum() / (above | mask).sum()
        assert float(found[i]) == pytest.approx(float(expected), abs=1e-6)


def test_localise():
    values = torch.zeros(3, 4)
    values[1, 2] = 1
    boxes = torch.tensor([[16.0, 8.0, 24.0, 16.0]])
    mask = torch.zeros(24, 32, dtype=torch.bool)
    mask[8:16, 16:24] = True
    hit, chance, found = localise(values, (8, 8), boxes, mask)
    assert hit == 1 and chance == pytest.approx(1 / 12)
    fine = functional.interpolate(values[None, None], (24, 32), mode='bilinear')[0, 0]
    half = fine / fine.max() >= 0.5
    at = int((THRESHOLDS == 0.5).nonzero())
    assert float(found[at]) == pytest.approx(float((half & mask).sum() / (half | mask).sum()))
    assert localise(values, (8, 8), boxes - 8, None).hit == 0
    assert localise(values, (8, 8), None, mask).hit == 1


def test_localisation_metric_of_label_maps():
    label_map = torch.zeros(1, 16, 16, dtype=torch.long)
    label_map[:, :8, :8] = 2
    label_map[:, 8:, 8:] = 255
    maps = torch.zeros(3, 2, 2)
    maps[2, 0, 0] = maps[0, 0, 1] = 1
    sample = dict(
        pred_tags=dict(scores=torch.ones(3), maps=maps, cell=(8, 8)),
        gt_sem_seg=dict(data=label_map),
    )
    metric = LocalisationMetric(exclude=[0])
    metric.process(None, [sample])
    found = metric.evaluate(1)
    assert found['localisation/pointing'] == 100
    assert found['localisation/pointing_chance'] == pytest.approx(25)
    everything = LocalisationMetric()
    everything.process(None, [sample])
    assert everything.evaluate(1)['localisation/pointing_chance'] == pytest.approx((25 + 50) / 2)


def test_all_classes_of_an_image_count():
    label_map = torch.tensor([[[0, 1], [2, 2]]]).repeat_interleave(8, 1).repeat_interleave(8, 2)
    maps = torch.zeros(3, 2, 2)
    maps[0, 0, 0] = maps[1, 1, 1] = maps[2, 1, 1] = 1  # the second is wrong
    sample = dict(
        pred_tags=dict(scores=torch.ones(3), maps=maps, cell=(8, 8)),
        gt_sem_seg=dict(data=label_map),
    )
    metric = LocalisationMetric()
    metric.process(None, [sample])
    assert metric.evaluate(1)['localisation/pointing'] == pytest.approx(200 / 3)


def test_annotations_of_the_resized_image_are_refused():
    masks = BitmapMasks(np.ones((1, 8, 8), np.uint8), 8, 8)
    truth = dict(labels=torch.tensor([0]), bboxes=torch.tensor([[0.0, 0, 8, 8]]), masks=masks)
    tags = dict(scores=torch.ones(1), maps=torch.ones(1, 1, 1), cell=(8, 8))
    sample = dict(pred_tags=tags, gt_instances=truth, ori_shape=(8, 8))
    metric = LocalisationMetric()
    metric.process(None, [sample])
    assert metric.evaluate(1)['localisation/mask_IoU'] == 100
    with pytest.raises(ValueError, match='LoadAnnotations has to come after Resize'):
        metric.process(None, [dict(sample, ori_shape=(16, 16))])


def test_what_is_missing_is_named():
    with pytest.raises(KeyError, match='WithImageHead'):
        ImageTagMetric().process(None, [dict()])
    tags = dict(pred_tags=dict(scores=torch.ones(1), maps=torch.ones(1, 1, 1), cell=(8, 8)))
    with pytest.raises(KeyError, match='LoadAnnotations'):
        LocalisationMetric().process(None, [tags])
