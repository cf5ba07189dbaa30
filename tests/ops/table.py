"""The operators and their example inputs: one row each."""

from functools import partial

import torch

from attnpool_backbones.ops.focal_loss import sigmoid_focal_loss, softmax_focal_loss
from attnpool_backbones.ops.nms import nms
from attnpool_backbones.ops.roi_align import roi_align
from attnpool_backbones.ops.star_relu import squared_relu, star_relu
from tests.ops.rows import Draw, Row


def logits_and_targets(draw: Draw) -> tuple:
    classes = draw.size(2, 5)
    logits = draw.tensor(draw.size(1, 7), classes)
    targets = torch.randint(classes, logits.shape[:1], generator=draw.generator)
    return logits, targets, draw.choice([0.5, 1.0, 2.0]), 0.25


def boxes_and_scores(draw: Draw) -> tuple:
    corner = draw.positive(draw.size(1, 400), 2, grad=False)
    boxes = torch.cat([corner, corner + draw.positive(*corner.shape, grad=False)], 1)
    return boxes, draw.tensor(len(boxes), grad=False).round(decimals=1), draw.choice([0.2, 0.6])


def maps_and_rois(draw: Draw, mode: str) -> tuple:
    x = draw.map(draw.size(1, 5))
    begin = 12 * draw.positive(draw.size(1, 9), 2, grad=False) - 11
    rois = torch.cat([begin, begin + 5 * draw.positive(*begin.shape, grad=False)], 1)
    images = torch.randint(len(x), (len(rois), 1), generator=draw.generator)
    size = (draw.size(1, 3), draw.size(1, 3))
    ratio, aligned = draw.choice([0, 1, 2]), draw.choice([True, False])
    return x, torch.cat([images, rois], 1), size, draw.choice([0.5, 1.0]), ratio, mode, aligned


ROWS = [
    Row(operator=sigmoid_focal_loss, example=logits_and_targets),
    Row(operator=softmax_focal_loss, example=logits_and_targets),
    Row(operator=nms, example=boxes_and_scores, differentiable=False),
    *(
        Row(
            operator=roi_align,
            name=f'roi_align-{mode}',
            example=partial(maps_and_rois, mode=mode),
        )
        for mode in ('avg', 'max')
    ),
    Row(
        operator=squared_relu,
        example=lambda draw: (draw.map(draw.size(1, 5)),),
        overwrites=(0,),
    ),
    Row(
        operator=star_relu,
        example=lambda draw: (draw.map(draw.size(1, 5)), draw.tensor(1), draw.tensor(1)),
        overwrites=(0,),
    ),
]
