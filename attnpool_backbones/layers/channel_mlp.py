"""The two-layer perceptron of a block, applied to the channels of each position."""

import torch
from torch import Tensor, nn

from attnpool_backbones.layers.activations import ACTIVATIONS
from attnpool_backbones.layers.linear2d import Linear2d
from attnpool_backbones.layers.star_relu import SquaredReLU, StarReLU
from attnpool_backbones.ops.star_relu import squared_relu

MLP_ACTIVATIONS = {**ACTIVATIONS, 'star_relu': StarReLU}
"""Activations by name."""


class ChannelMlp(nn.Module):
    """Linear, activation, linear over the channels of a map.

    Args:
        channels: Channels C.
        hidden: Width between the two layers.
        act: Name of the activation in :data:`MLP_ACTIVATIONS`.
        bias: Whether the two layers have biases.

    Raises:
        ValueError: An unknown activation.
    """

    def __init__(self, channels: int, hidden: int, act: str = 'gelu', bias: bool = True):
        super().__init__()
        if act not in MLP_ACTIVATIONS:
            raise ValueError(f"activation '{act}' must be one of {', '.join(MLP_ACTIVATIONS)}")
        self.fc1 = Linear2d(channels, hidden, bias=bias)
        self.act = MLP_ACTIVATIONS[act]()
        self.fc2 = Linear2d(hidden, channels, bias=bias)

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
