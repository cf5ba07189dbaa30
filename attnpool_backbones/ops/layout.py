"""Layouts of maps in memory. They change no value: the formulas know nothing of them."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from attnpool_backbones.ops.compiling import compiler_fuses
from attnpool_backbones.ops.formula import operator
from attnpool_backbones.ops.gradients import gradients_wanted
from attnpool_backbones.ops.own_operator import own_operator

SMALL_MAP = 400
"""Positions up to which a CPU convolves as fast, and trains faster, with contiguous maps; these
also round as the official code does."""
COPIED_POSITIONS = 512
"""Positions of a large map that a CPU copies from ``channels_last`` at a time."""
COPIED_CHANNELS = 16
"""Channels of a large map that a CPU copies to ``channels_last`` at a time."""
FEW_POSITIONS = 2048
"""Positions up to which one copy as the transposition of a matrix is faster than pieces."""


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


@contiguous_map.fast
def _(x: Tensor) -> Tensor:
    if x.device.type != 'cpu' or not x.is_contiguous(memory_format=torch.channels_last):
        return x.contiguous()
    if x.is_contiguous():
        return x
    if torch.compiler.is_compiling():
        trains = compiler_fuses() and gradients_wanted(x)
        return _compiled_contiguous(x) if trains else x.contiguous()
    if torch.jit.is_tracing():
        return x.contiguous()
    return _Contiguous.apply(x)


class _Contiguous(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        return contiguous_copy(x)

    @staticmethod
    def backward(ctx: FunctionCtx, dy: Tensor) -> Tensor:
        # It will be added to a gradient of this layout.
        return channels_last_copy(dy) if dy.is_contiguous() else dy


# Gradients of both layouts in one kernel are what torch's compiler cannot be trusted with: 2.13
# writes beyond a map whose positions are no multiple of a vector's.
@own_operator('contiguous_map')
def _compiled_contiguous(x: Tensor) -> Tensor:
    return contiguous_copy(x)


@_compiled_contiguous.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@own_operator('contiguous_map_backward')
def _compiled_contiguous_backward(dy: Tensor) -> Tensor:
    return channels_last_copy(dy.contiguous())


@_compiled_contiguous_backward.register_fake
def _(dy: Tensor) -> Tensor:
    return torch.empty_like(dy, memory_format=torch.channels_last)


def _differentiate(ctx: Any, dy: Tensor) -> Tensor:
    return _compiled_contiguous_backward(dy)


_compiled_contiguous.register_autograd(_differentiate)


def contiguous_copy(x: Tensor) -> Tensor:
    """Returns a contiguous copy of a ``channels_last`` map B, C, H, W, fast on a CPU."""
    if gradients_wanted(x):  # a copy in pieces has no gradient
        return x.contiguous()
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    if x.shape[2] * x.shape[3] <= FEW_POSITIONS:
        _copy_as_matrices(x.permute(0, 2, 3, 1).flatten(1, 2).mT, out.flatten(2))
        return out
    # In pieces that stay in the cache: it is read along one side and written along another.
    rows = max(COPIED_POSITIONS // x.shape[3], 1)
    for y, xs in zip(out.split(rows, dim=2), x.split(rows, dim=2), strict=True):
        y.copy_(xs)
    return out


def channels_last_copy(x: Tensor) -> Tensor:
    """Returns a ``channels_last`` copy of a contiguous map B, C, H, W, fast on a CPU."""
    if gradients_wanted(x):  # likewise
        return x.contiguous(memory_format=torch.channels_last)
    out = torch.empty_like(x, memory_format=torch.channels_last)
    if x.shape[2] * x.shape[3] <= FEW_POSITIONS:
        _copy_as_matrices(x.flatten(2).mT, out.permute(0, 2, 3, 1).flatten(1, 2))
        return out
    pieces = out.split(COPIED_CHANNELS, dim=1), x.split(COPIED_CHANNELS, dim=1)
    for y, xs in zip(*pieces, strict=True):
        y.copy_(xs)
    return out


def _copy_as_matrices(source: Tensor, target: Tensor) -> None:
    # Sample by sample, for torch has a fast copy for the transposition of matrices only.
    for x, y in zip(source, target, strict=True):
        y.copy_(x)


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
