"""Layouts of maps in memory. They change no value: the formulas know nothing of them."""

import torch
from torch import Tensor, nn

from attnpool_backbones.ops.formula import operator

SMALL_MAP = 400
"""Positions up to which a CPU convolves as fast, and trains faster, with contiguous maps; these
also round as the official code does."""


@operator
def in_format(x: Tensor, memory_format: torch.memory_format) -> Tensor:
    """Returns a map B, C, H, W."""
    return x


@operator
def contiguous_on_cpu(x: Tensor) -> Tensor:
    """Returns a map B, C, H, W; on a CPU the positions of a channel lie together."""
    return x


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


@contiguous_on_cpu.fast
def _(x: Tensor) -> Tensor:
    return x.contiguous() if x.device.type == 'cpu' else x


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
