"""Activations that need no memory of their own where no gradient is wanted.

On a CPU fresh memory costs more than the arithmetic, so there the input is overwritten: give them
maps that nobody else reads, such as what the layer before returned if :func:`own` has seen to it.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from attnpool_backbones.ops.formula import operator
from attnpool_backbones.ops.gradients import gradients_wanted


@operator
def gelu(x: Tensor) -> Tensor:
    """Returns x Phi(x), the exact GELU (arXiv 1606.08415); may overwrite ``x``."""
    return F.gelu(x)


@operator
def relu(x: Tensor) -> Tensor:
    """Returns max(x, 0); may overwrite ``x``."""
    return F.relu(x)


@operator
def silu(x: Tensor) -> Tensor:
    """Returns x sigmoid(x) (arXiv 1702.03118); may overwrite ``x``."""
    return F.silu(x)


@gelu.fast(compiled=False)
def _(x: Tensor) -> Tensor:
    return F.gelu(x) if gradients_wanted(x) else torch.ops.aten.gelu_(x)


@relu.fast(compiled=False)
def _(x: Tensor) -> Tensor:
    return F.relu(x, inplace=not gradients_wanted(x))


@silu.fast(compiled=False)
def _(x: Tensor) -> Tensor:
    return F.silu(x, inplace=not gradients_wanted(x))
