"""Activations that need no memory of their own where no gradient is wanted.

On a CPU fresh memory costs more than the arithmetic, so there the input is overwritten: give them
maps that nobody else reads, such as what a layer in front returned.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def is_spare(*tensors: Tensor | None) -> bool:
    """Tells whether no backward pass will want temporary tensors."""
    return not torch.is_grad_enabled() or not any(
        x is not None and x.requires_grad for x in tensors
    )


def gelu(x: Tensor) -> Tensor:
    """Computes the exact GELU (arXiv 1606.08415) of any tensor; overwrites a spare one."""
    return torch.ops.aten.gelu_(x) if is_spare(x) else F.gelu(x)


class GELU(nn.GELU):
    """:func:`gelu` as a module."""

    def __init__(self):
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return gelu(x)


class ReLU(nn.ReLU):
    """max(x, 0); overwrites a spare tensor."""

    def __init__(self):
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x, inplace=is_spare(x))


class SiLU(nn.SiLU):
    """x sigmoid(x) (arXiv 1702.03118); overwrites a spare tensor."""

    def __init__(self):
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x, inplace=is_spare(x))


ACTIVATIONS: dict[str, type[nn.Module]] = {'gelu': GELU, 'relu': ReLU, 'silu': SiLU}
"""Activations by name."""
