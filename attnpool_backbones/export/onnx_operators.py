"""The operators of this package in ONNX."""
# ruff: noqa: ANN001, ANN202  the exporter would take annotations for types of ONNX

import torch
from onnxscript import FLOAT, INT64
from onnxscript import opset18 as op

# registered with torch by being imported
from attnpool_backbones.export import operators as _operators  # noqa: F401
from attnpool_backbones.ops import roi_align as _roi_align  # noqa: F401

__all__ = ['translations']


def _padded_nms(boxes, scores, iou_threshold, score_threshold, count):
    chosen = op.NonMaxSuppression(
        boxes,
        op.Unsqueeze(scores, op.Constant(value_ints=[1])),  # one class
        op.Constant(value_ints=[count]),
        op.Constant(value_floats=[iou_threshold]),
        op.Constant(value_floats=[score_threshold]),
    )  # M, 3: image, class, box, image by image by falling score
    zero, one = op.Constant(value_ints=[0]), op.Constant(value_ints=[1])
    image = op.Gather(chosen, op.Constant(value_int=0), axis=1)
    box = op.Gather(chosen, op.Constant(value_int=2), axis=1)
    batch = op.Shape(boxes, start=0, end=1)
    room = op.Expand(
        op.Constant(value_ints=[-1]), op.Concat(batch, op.Constant(value_ints=[count]), axis=0)
    )
    # the place of a box in its row: its place in the list, less those of the images before
    images = op.Range(op.Constant(value_int=0), op.Squeeze(batch), op.Constant(value_int=1))
    of_image = op.Cast(
        op.Equal(op.Unsqueeze(images, one), op.Unsqueeze(image, zero)), to=INT64.dtype
    )
    counts = op.ReduceSum(of_image, one, keepdims=0)
    begins = op.CumSum(counts, op.Constant(value_int=0), exclusive=1)
    total = op.Squeeze(op.Shape(image))
    place = op.Sub(
        op.Range(op.Constant(value_int=0), total, op.Constant(value_int=1)),
        op.Gather(begins, image),
    )
    target = op.Concat(op.Unsqueeze(image, one), op.Unsqueeze(place, one), axis=1)
    return op.ScatterND(room, target, box)


def _roi_align_mean(x, rois, output_size, spatial_scale, sampling_ratio, aligned):
    index = op.Cast(op.Gather(rois, op.Constant(value_int=0), axis=1), to=INT64.dtype)
    boxes = op.Slice(
        rois,
        op.Constant(value_ints=[1]),
        op.Constant(value_ints=[5]),
        op.Constant(value_ints=[1]),
    )
    return op.RoiAlign(
        x,
        boxes,
        index,
        mode='avg',
        output_height=output_size[0],
        output_width=output_size[1],
        sampling_ratio=sampling_ratio,
        spatial_scale=spatial_scale,
        coordinate_transformation_mode='half_pixel' if aligned else 'output_half_pixel',
    )


def _adaptive_mean_weights(size, bins):
    """Weights bins, size of the pixels in the mean of each bin."""
    one = op.Constant(value_ints=[1])
    count = op.Constant(value_ints=[bins])
    index = op.Constant(value_ints=list(range(bins)))
    begin = op.Div(op.Mul(index, size), count)
    end = op.Div(op.Sub(op.Add(op.Mul(op.Add(index, one), size), count), one), count)
    pixel = op.Range(op.Constant(value_int=0), op.Squeeze(size), op.Constant(value_int=1))
    pixel, first, last = (
        op.Unsqueeze(v, op.Constant(value_ints=[axis]))
        for v, axis in ((pixel, 0), (begin, 1), (end, 1))
    )
    inside = op.And(op.GreaterOrEqual(pixel, first), op.Less(pixel, last))
    return op.Div(op.Cast(inside, to=FLOAT.dtype), op.Cast(op.Sub(last, first), to=FLOAT.dtype))


def _adaptive_mean(x, output_size):
    # The exporter's own form holds for images of the example's size only.
    rows = _adaptive_mean_weights(op.Shape(x, start=2, end=3), output_size[0])
    columns = _adaptive_mean_weights(op.Shape(x, start=3, end=4), output_size[1])
    return op.MatMul(op.MatMul(rows, x), op.Transpose(columns, perm=[1, 0]))


def translations() -> dict:
    """Returns what :func:`torch.onnx.export` takes as ``custom_translation_table``."""
    own, aten = torch.ops.attnpool_backbones, torch.ops.aten
    return {
        own.padded_nms.default: _padded_nms,
        own.roi_align_mean.default: _roi_align_mean,
        aten.adaptive_avg_pool2d.default: _adaptive_mean,
        aten._adaptive_avg_pool2d.default: _adaptive_mean,
    }
