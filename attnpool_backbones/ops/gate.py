"""The product of a map and a gate."""

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


@gated.fast(compiled=False)
def _(x: Tensor, gate: Tensor, inplace: bool = False) -> Tensor:
    return x.mul_(gate) if inplace and not gradients_wanted(x, gate) else x * gate
