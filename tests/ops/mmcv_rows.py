"""The operators of mmcv and their example inputs."""

from functools import partial

import torch

from attnpool_backbones.ops.box_overlaps import box_overlaps
from attnpool_backbones.ops.carafe import carafe
from attnpool_backbones.ops.deform_attention import deform_attention
from attnpool_backbones.ops.deform_conv import deform_conv2d
from attnpool_backbones.ops.deform_roi_pool import deform_roi_pool
from attnpool_backbones.ops.focal_loss import sigmoid_focal_loss, softmax_focal_loss
from attnpool_backbones.ops.masked_conv import masked_conv2d
from attnpool_backbones.ops.nms import nms
from attnpool_backbones.ops.psa_mask import psa_mask
from attnpool_backbones.ops.roi_align import roi_align
from attnpool_backbones.ops.roi_pool import roi_pool
from attnpool_backbones.ops.soft_nms import soft_nms
from tests.ops.rows import Draw, Row


def logits_and_targets(draw: Draw) -> tuple:
    classes = draw.size(2, 5)
    logits = draw.tensor(draw.size(1, 7), classes)
    targets = torch.randint(classes, logits.shape[:1], generator=draw.generator)
    return logits, targets, draw.choice([0.5, 1.0, 2.0]), 0.25


def some_boxes(draw: Draw, most: int) -> torch.Tensor:
    corner = draw.positive(draw.size(1, most), 2, grad=False)
    return torch.cat([corner, corner + draw.positive(*corner.shape, grad=False)], 1)


def boxes_and_scores(draw: Draw, most: int = 400) -> tuple:
    boxes = some_boxes(draw, most)
    return boxes, draw.tensor(len(boxes), grad=False).round(decimals=1), draw.choice([0.2, 0.6])


def boxes_to_soften(draw: Draw) -> tuple:
    boxes = some_boxes(draw, 60)
    scores = draw.positive(len(boxes), grad=False)
    return boxes, scores, draw.choice([0.2, 0.6]), 0.5, 0.01, draw.choice(['linear', 'gaussian'])


def pairs_of_boxes(draw: Draw) -> tuple:
    first, second = some_boxes(draw, 9), some_boxes(draw, 9)
    return first.requires_grad_(), second.requires_grad_(), draw.choice(['iou', 'iof'])


def some_rois(draw: Draw, images: int) -> torch.Tensor:
    begin = 12 * draw.positive(draw.size(1, 9), 2, grad=False) - 11
    boxes = torch.cat([begin, begin + 5 * draw.positive(*begin.shape, grad=False)], 1)
    return torch.cat([torch.randint(images, (len(boxes), 1), generator=draw.generator), boxes], 1)


def maps_and_rois(draw: Draw, mode: str) -> tuple:
    x = draw.map(draw.size(1, 5))
    size, ratio = (draw.size(1, 3), draw.size(1, 3)), draw.choice([0, 1, 2])
    rois = some_rois(draw, len(x))
    return x, rois, size, draw.choice([0.5, 1.0]), ratio, mode, draw.choice([True, False])


def maps_and_rois_to_pool(draw: Draw) -> tuple:
    x = draw.map(draw.size(1, 5))
    return x, some_rois(draw, len(x)), (draw.size(1, 3), draw.size(1, 3)), draw.choice([0.5, 1.0])


def maps_and_moved_rois(draw: Draw, moved: bool) -> tuple:
    x = draw.map(draw.size(1, 5))
    rois, size = some_rois(draw, len(x)), (draw.size(1, 3), draw.size(1, 3))
    offset = draw.tensor(len(rois), 2, *size) if moved else None
    return x, rois, offset, size, draw.choice([0.5, 1.0]), draw.choice([0, 2])


def maps_and_offsets(draw: Draw, masked: bool) -> tuple:
    groups, deform_groups = draw.choice([1, 2]), draw.choice([1, 2])
    kernel = (draw.size(1, 3), draw.size(1, 3))
    stride, padding = (1, draw.size(1, 2)), (draw.size(0, 2), 1)
    dilation = (draw.size(1, 2), 1)
    size = [draw.size(6, 9), draw.size(6, 9)]
    x = draw.tensor(draw.size(1, 2), 2 * groups * deform_groups, *size)
    result = [
        (length + 2 * pad - step * (taps - 1) - 1) // move + 1
        for length, pad, step, taps, move in zip(
            size, padding, dilation, kernel, stride, strict=True
        )
    ]
    taps = deform_groups * kernel[0] * kernel[1]
    offset = draw.tensor(len(x), 2 * taps, *result)
    weight = draw.tensor(groups * draw.size(1, 2), 2 * deform_groups, *kernel)
    bias = draw.tensor(len(weight)) if masked else None
    mask = draw.positive(len(x), taps, *result) if masked else None
    return x, offset, weight, bias, mask, stride, padding, dilation, groups, deform_groups


def values_and_locations(draw: Draw) -> tuple:
    shapes = torch.tensor([[draw.size(2, 6), draw.size(2, 6)], [1, 2]])
    pixels = shapes.prod(1)
    starts = pixels.cumsum(0) - pixels
    value = draw.tensor(draw.size(1, 2), int(pixels.sum()), draw.size(1, 2), draw.size(1, 3))
    points = (len(value), draw.size(1, 9), value.shape[2], 2, draw.size(1, 2))
    return value, shapes, starts, draw.positive(*points, 2), draw.tensor(*points)


def features_and_masks(draw: Draw) -> tuple:
    size, groups, scale = draw.choice([1, 3]), draw.choice([1, 2]), draw.size(1, 2)
    features = draw.map(groups * draw.size(1, 3), side=5)
    height, width = features.shape[2:]
    masks = draw.tensor(len(features), groups * size**2, height * scale, width * scale)
    return features, masks, size, groups, scale


def map_and_mask(draw: Draw) -> tuple:
    x = draw.tensor(1, draw.size(1, 3), draw.size(3, 9), draw.size(3, 9))
    kernel = draw.choice([1, 3])
    weight = draw.tensor(draw.size(1, 3), x.shape[1], kernel, kernel)
    mask = draw.tensor(1, *x.shape[2:], grad=False)
    return x, mask, weight, draw.tensor(len(weight)), (kernel // 2, kernel // 2)


def masks_of_pixels(draw: Draw) -> tuple:
    size = (draw.size(1, 7), draw.size(1, 7))
    masks = draw.map(size[0] * size[1], side=5)
    return masks, draw.choice(['collect', 'distribute']), size


MMCV_ROWS = [
    Row(operator=sigmoid_focal_loss, example=logits_and_targets),
    Row(operator=softmax_focal_loss, example=logits_and_targets),
    Row(operator=nms, example=boxes_and_scores, differentiable=False),
    Row(operator=soft_nms, example=boxes_to_soften, differentiable=False),
    Row(operator=box_overlaps, example=pairs_of_boxes),
    *(
        Row(operator=roi_align, name=f'roi_align-{mode}', example=partial(maps_and_rois, mode=mode))
        for mode in ('avg', 'max')
    ),
    Row(operator=roi_pool, example=maps_and_rois_to_pool),
    *(
        Row(
            operator=deform_roi_pool,
            name=f'deform_roi_pool-{"moved" if moved else "still"}',
            example=partial(maps_and_moved_rois, moved=moved),
        )
        for moved in (True, False)
    ),
    *(
        Row(
            operator=deform_conv2d,
            name=f'deform_conv2d-{"v2" if masked else "v1"}',
            example=partial(maps_and_offsets, masked=masked),
        )
        for masked in (True, False)
    ),
    Row(operator=deform_attention, example=values_and_locations),
    Row(operator=carafe, example=features_and_masks),
    Row(operator=masked_conv2d, example=map_and_mask),
    Row(operator=psa_mask, example=masks_of_pixels),
]
