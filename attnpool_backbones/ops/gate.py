"""What a unit does to a map, a gate or a shift, alone or at the end of a residual block."""

import torch
from torch import Tensor

from attnpool_backbones.ops.formula import operator
from attnpool_backbones.ops.gradients import gradients_wanted


@operator
def gated(x: Tensor, gate: Tensor, inplace: bool = False) -> Tensor:
    """Returns x * gate (e.g. arXiv 1709.01507, eq. 4).

    Args:
        x: Map B, C, H, W.
        gate: B or 1, C or 1, H or 1, W or 1.
        inplace: Whether ``x`` may be overwritten where no gradient is wanted.
    """
    return x * gate


@operator
def gated_sum(x: Tensor, gate: Tensor, shortcut: Tensor) -> Tensor:
    """Returns relu(shortcut + x * gate), the end of a block (arXiv 1709.01507, fig. 3).

    Args:
        x: Map B, C, H, W; overwritten where no gradient is wanted.
        gate: B or 1, C or 1, H or 1, W or 1.
        shortcut: Map like ``x``.
    """
    return torch.relu(shortcut + x * gate)


@operator
def shifted_sum(x: Tensor, shift: Tensor, shortcut: Tensor) -> Tensor:
    """Returns relu(shortcut + x + shift), the end of a block (after arXiv 1904.11492, fig. 4).

    Args:
        x: Map B, C, H, W; overwritten where no gradient is wanted.
        shift: B or 1, C or 1, H or 1, W or 1.
        shortcut: Map like ``x``.
    """
    return torch.relu(shortcut + x + shift)


@gated.fast(compiled=False)
def _(x: Tensor, gate: Tensor, inplace: bool = False) -> Tensor:
    return x.mul_(gate) if inplace and not gradients_wanted(x, gate) else x * gate


@gated_sum.fast(compiled=False)
def _(x: Tensor, gate: Tensor, shortcut: Tensor) -> Tensor:
    if gradients_wanted(x, gate, shortcut) or not x.dtype == gate.dtype == shortcut.dtype:
        return torch.addcmul(shortcut, x, gate).relu_()
    return torch.addcmul(shortcut, x, gate, out=x).relu_()


@shifted_sum.fast(compiled=False)
def _(x: Tensor, shift: Tensor, shortcut: Tensor) -> Tensor:
    if not x.dtype == shift.dtype == shortcut.dtype:
        return shifted_sum.formula(x, shift, shortcut)
    y = x + shift if gradients_wanted(x, shift, shortcut) else x.add_(shift)
    return y.add_(shortcut).relu_()
