"""StarReLU, the activation of the second MetaFormer paper (arXiv 2210.13452), as a module."""

import torch
from torch import Tensor, nn

from attnpool_backbones.ops.fusing import plain
from attnpool_backbones.ops.star_relu import squared_relu, star_relu


@plain
class SquaredReLU(nn.Module):
    """max(x, 0)^2; what is left of :class:`StarReLU` once its scale and shift are folded away."""

    def forward(self, x: Tensor) -> Tensor:
        return squared_relu(x)


@plain
class StarReLU(nn.Module):
    """scale * max(x, 0)^2 + bias with a learned scalar scale and bias (arXiv 2210.13452)."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return star_relu(x, self.scale.to(x.dtype), self.bias.to(x.dtype))
