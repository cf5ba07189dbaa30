"""Views of one image are merged into one set of instances with their masks."""

import pytest
import torch

pytest.importorskip('mmdet')

from mmdet.structures import DetDataSample  # noqa: E402
from mmengine.config import ConfigDict  # noqa: E402
from mmengine.structures import InstanceData  # noqa: E402

from attnpool_backbones.engine.instance_tta import InstanceTTAModel  # noqa: E402

HEIGHT, WIDTH = 20, 30


class Detector(torch.nn.Module):
    """Any module with a test_step."""

    def test_step(self, data):
        raise NotImplementedError


def view(
    boxes: list, scores: list, labels: list, direction: str | None = None, with_masks: bool = True
) -> DetDataSample:
    """A prediction whose masks fill their boxes, as seen in a flipped image."""
    corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    instances = InstanceData(
        bboxes=corners, scores=torch.tensor(scores), labels=torch.tensor(labels, dtype=torch.long)
    )
    if with_masks:
        instances.masks = filled(corners)
    sample = DetDataSample(
        metainfo=dict(
            ori_shape=(HEIGHT, WIDTH), flip=direction is not None, flip_direction=direction
        )
    )
    sample.pred_instances = instances
    return sample


def filled(boxes: torch.Tensor) -> torch.Tensor:
    masks = torch.zeros(len(boxes), HEIGHT, WIDTH, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.long().tolist(), strict=True):
        mask[y1:y2, x1:x2] = True
    return masks


def model(limit: int = 10) -> InstanceTTAModel:
    return InstanceTTAModel(
        module=Detector(),
        tta_cfg=ConfigDict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=limit),
    )


def merge(*views: DetDataSample, limit: int = 10) -> InstanceData:
    return model(limit).merge_preds([list(views)])[0].pred_instances


@pytest.mark.parametrize(
    ('direction', 'flipped'),
    [
        ('horizontal', [20, 4, 28, 10]),
        ('vertical', [2, 10, 10, 16]),
        ('diagonal', [20, 10, 28, 16]),
    ],
)
def test_flipped_instances_come_back(direction, flipped):
    box = [2, 4, 10, 10]
    merged = merge(view([box], [0.6], [3]), view([flipped], [0.9], [3], direction))
    assert merged.bboxes.tolist() == [box] and merged.labels.tolist() == [3]
    assert merged.scores.tolist() == pytest.approx([0.9])
    assert torch.equal(merged.masks, filled(torch.tensor([box])))


def test_each_box_keeps_its_mask():
    boxes = [[0, 0, 8, 8], [12, 10, 20, 18]]
    flipped = view([[22, 0, 30, 8]], [0.7], [0], 'horizontal')
    merged = merge(view(boxes, [0.5, 0.8], [1, 2]), flipped)
    assert merged.labels.tolist() == [2, 0, 1]
    assert torch.equal(merged.masks, filled(merged.bboxes))
    limited = merge(view(boxes, [0.5, 0.8], [1, 2]), limit=1)
    assert limited.labels.tolist() == [2] and len(limited.masks) == 1


@pytest.mark.parametrize('with_masks', [True, False])
@pytest.mark.parametrize('boxes', [[[2, 4, 10, 10]], []])
def test_annotations_are_those_of_the_upright_view(with_masks, boxes):
    views = []
    for direction, truth in (('horizontal', [20, 4, 28, 10]), (None, [2, 4, 10, 10])):
        count = len(boxes)
        seen = view(boxes, [0.5] * count, [3] * count, direction, with_masks)
        seen.gt_instances = InstanceData(bboxes=torch.tensor([truth]))
        views.append(seen)
    assert model().merge_preds([views])[0].gt_instances.bboxes.tolist() == [[2, 4, 10, 10]]


def test_nothing_found():
    merged = merge(view([], [], []), view([], [], [], 'horizontal'))
    assert len(merged.bboxes) == 0 and merged.masks.shape == (0, HEIGHT, WIDTH)


def test_without_masks():
    box = [2, 4, 10, 10]
    merged = merge(
        view([box], [0.6], [3], with_masks=False),
        view([[20, 4, 28, 10]], [0.9], [3], 'horizontal', with_masks=False),
    )
    assert merged.bboxes.tolist() == [box] and 'masks' not in merged
