"""Averages of maps."""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from attnpool_backbones.ops.formula import operator
from attnpool_backbones.ops.gradients import gradients_wanted


@operator
def position_mean(x: Tensor) -> Tensor:
    """Returns the mean over the positions, B, C, 1, 1, of a map B, C, H, W."""
    return x.mean(dim=(2, 3), keepdim=True)


@position_mean.fast(compiled=False)
def _(x: Tensor) -> Tensor:
    return _Mean.apply(x) if gradients_wanted(x) else x.mean(dim=(2, 3), keepdim=True)


class _Mean(torch.autograd.Function):
    """A mean whose gradient stays as small as it is; torch's is a whole map, of its own layout."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        y = x.mean(dim=(2, 3), keepdim=True)
        ctx.shape, ctx.count = x.shape, x.shape[2] * x.shape[3]
        return y

    @staticmethod
    def backward(ctx: FunctionCtx, dy: Tensor) -> Tensor:
        return (dy / ctx.count).expand(ctx.shape)
