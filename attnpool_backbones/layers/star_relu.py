"""StarReLU, the activation of the second MetaFormer paper (arXiv 2210.13452), as a module."""

import torch
from torch import Tensor, nn

from attnpool_backbones.ops.star_relu import squared_relu, star_relu


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
        return star_relu(x, self.scale.to(x.dtype), self.bias.to(x.dtype))

    def fold_into(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """Returns weight and bias of a linear layer that does scale and shift as well.

        Args:
            weight: Of the linear layer after this activation, out x in.
            bias: Likewise, or None.

        Returns:
            The weight and bias with which that layer, on :func:`squared_relu`, equals the original
            on this activation.
        """
        shift = self.bias * weight.sum(1)
        return weight * self.scale, shift if bias is None else bias + shift
