"""StarReLU, the activation of the second MetaFormer paper (arXiv 2210.13452)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class _SquaredReLU(torch.autograd.Function):
    # Keeps one map for the backward pass, like ReLU alone, and takes two passes each way.
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        root = F.relu(x)
        ctx.save_for_backward(root)
        return root * root

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (root,) = ctx.saved_tensors
        return (grad * root).mul_(2)


def squared_relu(x: Tensor) -> Tensor:
    """Returns max(x, 0)^2 (arXiv 2109.08668)."""
    if torch.is_grad_enabled() and x.requires_grad:
        return _SquaredReLU.apply(x)
    return F.relu(x).square_()


class SquaredReLU(nn.Module):
    """max(x, 0)^2; what is left of :class:`StarReLU` once its scale and shift are folded away."""

    def forward(self, x: Tensor) -> Tensor:
        return squared_relu(x)


class StarReLU(nn.Module):
    """scale * max(x, 0)^2 + bias with a learned scalar scale and bias (arXiv 2210.13452)."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        y = squared_relu(x)
        return torch.addcmul(self.bias.to(y.dtype), y, self.scale.to(y.dtype))

    def fold_into(
        self, weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor]:
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
