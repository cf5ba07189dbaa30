"""Mean and maximum of a map at once, as CBAM's gates take them (arXiv 1807.06521)."""

import math

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn import functional as F

from attnpool_backbones.ops.formula import operator
from attnpool_backbones.ops.gradients import gradients_wanted


@operator
def position_mean_and_max(x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and maximum over the positions, each B, C, 1, 1, of a map B, C, H, W."""
    return x.mean(dim=(2, 3), keepdim=True), F.adaptive_max_pool2d(x, 1)


@operator
def channel_mean_and_max(x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and maximum over the channels, each B, 1, H, W, of a map B, C, H, W."""
    return x.mean(dim=1, keepdim=True), x.max(dim=1, keepdim=True).values


@position_mean_and_max.fast(compiled=False)
def _(x: Tensor) -> tuple[Tensor, Tensor]:
    return _mean_and_max(x, (2, 3))


@channel_mean_and_max.fast(compiled=False)
def _(x: Tensor) -> tuple[Tensor, Tensor]:
    return _mean_and_max(x, (1,))


def _mean_and_max(x: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    if gradients_wanted(x):
        return _MeanAndMax.apply(x, dims)
    return x.mean(dim=dims, keepdim=True), x.amax(dim=dims, keepdim=True)


class _MeanAndMax(torch.autograd.Function):
    """Both with one gradient, a map in the layout of x.

    torch's gradient of ``amax`` compares, counts in int64 and multiplies whole maps, twenty times
    the cost of an index; that of ``max`` is a map in a layout of its own, and the mean's a third.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        mean = x.mean(dim=dims, keepdim=True)
        if dims == (1,):
            maximum, index = x.max(dim=1, keepdim=True)  # B, 1, H, W
        else:
            maximum, index = F.adaptive_max_pool2d(x, 1, return_indices=True)  # B, C, 1, 1
        ctx.save_for_backward(index)
        ctx.dims, ctx.shape, ctx.count = dims, x.shape, math.prod(x.shape[dim] for dim in dims)
        last = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
        ctx.layout = torch.channels_last if last else torch.contiguous_format
        return mean, maximum

    @staticmethod
    def backward(ctx: FunctionCtx, dmean: Tensor, dmax: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        dx = torch.empty(
            ctx.shape, dtype=dmean.dtype, device=dmean.device, memory_format=ctx.layout
        )
        dx.copy_(dmean / ctx.count)
        if ctx.dims == (1,):
            return dx.scatter_add_(1, index, dmax), None
        dx.flatten(2).scatter_add_(2, index.flatten(2), dmax.flatten(2))
        return dx, None
