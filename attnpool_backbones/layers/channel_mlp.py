"""The MLP of a block, applied to the channels of each position of a map."""

import torch
from torch import Tensor, nn

from attnpool_backbones.layers.linear2d import Linear2d
from attnpool_backbones.layers.mlp import MLP
from attnpool_backbones.layers.star_relu import SquaredReLU, StarReLU
from attnpool_backbones.ops.star_relu import squared_relu


class ChannelMlp(MLP):
    """Linear, activation, linear over the channels of a map; the arguments of :class:`MLP`."""

    linear = Linear2d

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """Computes ``scale * mlp(x)``.

        Args:
            x: Map B, C, H, W.
            scale: One factor per channel, C. Default: 1.

        Returns:
            Map B, C, H, W.
        """
        # Scales and shifts go into the weights: a pass over the (4x wider) map costs more, and a
        # map less is kept for the backward pass.
        y = self.fc1(x)  # B, hidden, H, W
        weight, bias = self.fc2.weight, self.fc2.bias
        if isinstance(self.act, StarReLU):
            y = squared_relu(y)
            weight, bias = self.act.fold_into(weight, bias)
        else:
            y = self.act(y)
        if scale is not None:
            weight = weight * scale.view(-1, 1)
            bias = None if bias is None else bias * scale
        return self.fc2(y, weight, bias)

    @torch.no_grad()
    def fold(self) -> None:
        """Folds the scale and shift of a StarReLU into the second layer, for inference."""
        if isinstance(self.act, StarReLU):
            weight, bias = self.act.fold_into(self.fc2.weight, self.fc2.bias)
            self.fc2.weight = nn.Parameter(weight)
            self.fc2.bias = nn.Parameter(bias)
            self.act = SquaredReLU()
