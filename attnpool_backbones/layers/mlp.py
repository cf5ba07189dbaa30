"""The multilayer perceptron of a transformer block (arXiv 1706.03762, eq. 2)."""

from typing import ClassVar

from torch import Tensor, nn

from attnpool_backbones.layers.activations import ACTIVATIONS
from attnpool_backbones.layers.star_relu import StarReLU

MLP_ACTIVATIONS = {**ACTIVATIONS, 'star_relu': StarReLU}
"""Activations by name."""


class MLP(nn.Module):
    """Linear, activation, linear over the channels of each token.

    Args:
        channels: Channels C.
        hidden: Width between the two layers.
        act: Name of the activation in :data:`MLP_ACTIVATIONS`.
        bias: Whether the two layers have biases.

    Raises:
        ValueError: An unknown activation.
    """

    linear: ClassVar[type[nn.Linear]] = nn.Linear

    def __init__(self, channels: int, hidden: int, act: str = 'gelu', bias: bool = True):
        super().__init__()
        if act not in MLP_ACTIVATIONS:
            raise ValueError(f"activation '{act}' must be one of {', '.join(MLP_ACTIVATIONS)}")
        self.fc1 = self.linear(channels, hidden, bias=bias)
        self.act = MLP_ACTIVATIONS[act]()
        self.fc2 = self.linear(hidden, channels, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Maps tokens B, N, C to B, N, C."""
        return self.fc2(self.act(self.fc1(x)))
