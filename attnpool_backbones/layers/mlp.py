"""The two-layer MLP of a block, over tokens and over maps."""

import torch
from torch import Tensor, nn

from attnpool_backbones.layers.activations import ACTIVATIONS
from attnpool_backbones.layers.star_relu import SquaredReLU, StarReLU
from attnpool_backbones.ops.fusing import may_fuse
from attnpool_backbones.ops.mlp import mlp
from attnpool_backbones.ops.star_relu import absorb_star_relu

MLP_ACTIVATIONS = {**ACTIVATIONS, 'star_relu': StarReLU}
"""Activations by name."""


class MLP(nn.Module):
    """Linear, activation, linear over the channels of tokens (arXiv 1706.03762, eq. 2).

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
        self.fc1 = nn.Linear(channels, hidden, bias=bias)
        self.act = MLP_ACTIVATIONS[act]()
        self.fc2 = nn.Linear(hidden, channels, bias=bias)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """Computes ``scale * mlp(x)``.

        Args:
            x: Tokens ..., C.
            scale: One factor per channel, C. Default: 1.

        Returns:
            ..., C.
        """
        return mlp(x, self.fc1, self.act, self.fc2, scale)

    @torch.no_grad()
    def fold(self) -> None:
        """Folds the scale and shift of a StarReLU into the second layer, for inference."""
        if isinstance(self.act, StarReLU) and may_fuse(self.act, self.fc2):
            weight, bias = absorb_star_relu(
                self.fc2.weight, self.fc2.bias, self.act.scale, self.act.bias
            )
            self.fc2.weight = nn.Parameter(weight)
            self.fc2.bias = nn.Parameter(bias)
            self.act = SquaredReLU()


class ChannelMlp(MLP):
    """:class:`MLP` over the channels of a map, at each position."""

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """Computes ``scale * mlp(x)`` of a map B, C, H, W; the result is ``channels_last``."""
        return super().forward(x.permute(0, 2, 3, 1), scale).permute(0, 3, 1, 2)
