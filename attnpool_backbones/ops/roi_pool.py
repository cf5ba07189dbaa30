"""RoIPool (Fast R-CNN, arXiv 1504.08083, section 2.1) as mmcv defines it."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from attnpool_backbones.ops.formula import operator
from attnpool_backbones.ops.own_operator import own_operator
from attnpool_backbones.ops.precision import wide_dtype


@operator
def roi_pool(
    x: Tensor, rois: Tensor, output_size: Sequence[int], spatial_scale: float = 1.0
) -> Tensor:
    """Takes the maximum of the pixels in each bin of regions of interest.

    Args:
        x: B, C, H, W.
        rois: R, 5: index of the image, x1, y1, x2, y2, in pixels of the image, x2 and y2 inside.
        output_size: Height and width of the result, in bins.
        spatial_scale: Pixels of the map for one of the image. Default: 1.0.

    Returns:
        R, C, *output_size; zero in bins beyond the map. Differentiable in ``x``.
    """
    pooled = [x[:0, :, :1, :1].expand(-1, -1, *output_size)]
    for image, ys, xs in _bins(x, rois, output_size, spatial_scale):
        empty = x.new_zeros(x.shape[1])
        bins = [
            x[image, :, y0:y1, x0:x1].amax((1, 2)) if y0 < y1 and x0 < x1 else empty
            for y0, y1 in ys
            for x0, x1 in xs
        ]
        pooled.append(torch.stack(bins, 1).view(1, -1, *output_size))
    return torch.cat(pooled)


@roi_pool.fast
def _(x: Tensor, rois: Tensor, output_size: Sequence[int], spatial_scale: float = 1.0) -> Tensor:
    return pool(x, rois, output_size, spatial_scale)[0]


@own_operator('roi_pool')
def pool(
    x: Tensor, rois: Tensor, output_size: Sequence[int], spatial_scale: float
) -> tuple[Tensor, Tensor]:
    """Returns the maxima and, row by row, the indices of their first pixels; -1 in empty bins."""
    output, argmax = _room(x, rois, output_size)
    output.zero_()
    argmax.fill_(-1)
    width = x.shape[3]
    for index, (image, ys, xs) in enumerate(_bins(x, rois, output_size, spatial_scale)):
        for column, (x0, x1) in enumerate(xs):
            if x0 >= x1:
                continue
            best, at = x[image, :, :, x0:x1].max(2)  # C, H
            for row, (y0, y1) in enumerate(ys):
                if y0 >= y1:
                    continue
                output[index, :, row, column], line = best[:, y0:y1].max(1)
                line = (line + y0).unsqueeze(1)
                pixel = line * width + at.gather(1, line) + x0
                argmax[index, :, row, column] = pixel.squeeze(1)
    return output, argmax


@own_operator('roi_pool_backward')
def pool_backward(grad: Tensor, rois: Tensor, argmax: Tensor, shape: Sequence[int]) -> Tensor:
    """Returns the gradient of x: each maximum's goes to its pixel."""
    wide = wide_dtype(grad.dtype)
    grad_x = grad.new_zeros(shape, dtype=wide).flatten(2)  # B, C, H * W
    images = rois[:, 0].long().view(-1, 1, 1).expand(-1, *argmax.flatten(2).shape[1:])
    channels = torch.arange(grad.shape[1], device=grad.device).view(-1, 1).expand_as(images)
    argmax, values = argmax.flatten(2), grad.flatten(2).to(wide)
    place = images, channels, argmax.clamp(min=0).long()
    grad_x.index_put_(place, values * (argmax >= 0), accumulate=True)
    return grad_x.view(torch.Size(shape)).to(grad.dtype)


def _room(x: Tensor, rois: Tensor, output_size: Sequence[int], *_: Any) -> tuple[Tensor, Tensor]:
    output = x.new_empty(rois.shape[0], x.shape[1], *output_size)
    return output, torch.empty_like(output, dtype=torch.int32)


def _keep(ctx: Any, inputs: tuple, output: tuple) -> None:
    ctx.shape = inputs[0].shape
    ctx.save_for_backward(inputs[1], output[1])
    ctx.mark_non_differentiable(output[1])


def _gradients(ctx: Any, grad: Tensor, _: Any) -> tuple:
    return pool_backward(grad, *ctx.saved_tensors, ctx.shape), None, None, None


pool.register_fake(_room)
pool.register_autograd(_gradients, setup_context=_keep)
pool_backward.register_fake(lambda grad, rois, argmax, shape: grad.new_empty(shape))


def _bins(
    x: Tensor, rois: Tensor, output_size: Sequence[int], spatial_scale: float
) -> Iterator[tuple[int, list, list]]:
    """Yields the image of each RoI, and where its bins begin and end, in y and x."""
    rois = rois.to(wide_dtype(rois.dtype))
    scale = torch.tensor(spatial_scale, dtype=torch.float32)  # mmcv rounds it so
    begin, end = rois[:, 1:3] * scale, (rois[:, 3:] + 1) * scale
    there = ((end - begin) > 0).all(1)
    edges = []
    for axis in (1, 0):
        bins, size = output_size[1 - axis], x.shape[3 - axis]
        bin_size = ((end - begin)[:, axis] / bins).unsqueeze(1)
        steps = torch.arange(bins + 1, device=rois.device) * bin_size + begin[:, axis].unsqueeze(1)
        first, last = steps[:, :-1].floor(), steps[:, 1:].ceil()
        pairs = torch.stack([first, last], 2).clamp(0, size).long()
        edges.append((pairs * there.view(-1, 1, 1)).tolist())
    yield from zip(rois[:, 0].long().tolist(), *edges, strict=True)
