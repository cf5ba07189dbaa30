"""Layouts of maps in memory. They change no value: the formulas know nothing of them."""

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from attnpool_backbones.ops.formula import operator

SMALL_MAP = 400
"""Positions up to which a CPU convolves as fast, and trains faster, with contiguous maps; these
also round as the official code does."""
COPIED_POSITIONS = 512
"""Positions of a map that a CPU copies from one layout to the other at a time."""


@operator
def in_format(x: Tensor, memory_format: torch.memory_format) -> Tensor:
    """Returns a map B, C, H, W."""
    return x


@operator
def channels_last_on_cpu(x: Tensor) -> Tensor:
    """Returns a map B, C, H, W; on a CPU the channels of a position lie together."""
    return x


@operator
def contiguous_map(x: Tensor) -> Tensor:
    """Returns a map B, C, H, W; the positions of a channel lie together, in any device's memory."""
    return x.contiguous()


@operator
def convolved(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Returns conv(x) of a map B, C, H, W, in the layout that suits its size."""
    return conv(x)


@operator
def max_pooled(x: Tensor, pool: nn.MaxPool2d) -> Tensor:
    """Returns pool(x) of a map B, C, H, W, in the layout of the map."""
    return pool(x)


@in_format.fast
def _(x: Tensor, memory_format: torch.memory_format) -> Tensor:
    return x.contiguous(memory_format=memory_format)


@channels_last_on_cpu.fast
def _(x: Tensor) -> Tensor:
    if x.device.type != 'cpu':
        return x
    return x.contiguous(memory_format=torch.channels_last)


@contiguous_map.fast(compiled=False)
def _(x: Tensor) -> Tensor:
    if x.device.type != 'cpu' or not x.is_contiguous(memory_format=torch.channels_last):
        return x.contiguous()
    return x if x.is_contiguous() else _Contiguous.apply(x)


class _Contiguous(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        # In pieces that stay in the cache: it is read along one side and written along another.
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
        rows = max(COPIED_POSITIONS // x.shape[3], 1)
        for y, xs in zip(out.split(rows, dim=2), x.split(rows, dim=2), strict=True):
            y.copy_(xs)
        return out

    @staticmethod
    def backward(ctx: FunctionCtx, dy: Tensor) -> Tensor:
        # It will be added to a gradient of this layout.
        return dy.contiguous(memory_format=torch.channels_last)


@convolved.fast
def _(x: Tensor, conv: nn.Conv2d) -> Tensor:
    if x.device.type == 'cpu' and x.shape[-2] * x.shape[-1] <= SMALL_MAP:
        return conv(x.contiguous()).contiguous(memory_format=torch.channels_last)
    return conv(x)


@max_pooled.fast
def _(x: Tensor, pool: nn.MaxPool2d) -> Tensor:
    if x.device.type == 'cpu' and x.is_contiguous():
        # torch vectorises this pooling only over channels that lie next to each other.
        return pool(x.contiguous(memory_format=torch.channels_last)).contiguous()
    return pool(x)
