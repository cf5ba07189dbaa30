"""StarReLU, the activation of the second MetaFormer paper (arXiv 2210.13452)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnpool_backbones.layers.activations import is_spare


class _SquaredReLU(torch.autograd.Function):
    # Keeps one map for the backward pass, like ReLU alone.
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        root = F.relu(x)
        ctx.save_for_backward(root)
        return root * root

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (root,) = ctx.saved_tensors
        # 2 * grad * root in a single pass.
        return torch.addcmul(grad.new_zeros(()), grad, root, value=2)


def squared_relu(x: Tensor, inplace: bool = False) -> Tensor:
    """Returns max(x, 0)^2 (arXiv 2109.08668).

    Args:
        x: Any tensor.
        inplace: Whether ``x`` may be overwritten where no gradient is wanted.
    """
    if is_spare(x):
        return F.relu(x, inplace=inplace).square_()
    return _SquaredReLU.apply(x)


class SquaredReLU(nn.Module):
    """max(x, 0)^2; what is left of :class:`StarReLU` once its scale and shift are folded away."""

    def forward(self, x: Tensor, inplace: bool = False) -> Tensor:
        """Computes the activation; ``inplace`` is that of :func:`squared_relu`."""
        return squared_relu(x, inplace)


class StarReLU(nn.Module):
    """scale * max(x, 0)^2 + bias with a learned scalar scale and bias (arXiv 2210.13452)."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, inplace: bool = False) -> Tensor:
        """Computes the activation; ``inplace`` is that of :func:`squared_relu`."""
        y = squared_relu(x, inplace)
        return torch.addcmul(self.bias.to(y.dtype), y, self.scale.to(y.dtype))

    def fold_into(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """Returns weight and bias of a linear layer that does scale and shift as well.

        Args:
            weight: Of the linear layer behind this activation, out x in.
            bias: Likewise, or None.

        Returns:
            The weight and bias with which that layer, on :func:`squared_relu`, equals the original
            on this activation.
        """
        shift = self.bias * weight.sum(1)
        return weight * self.scale, shift if bias is None else bias + shift
