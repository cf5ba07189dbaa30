"""Depthwise convolution of stride 1."""

from torch import Tensor, nn

from attnpool_backbones.ops.depthwise_conv import depthwise_conv
from attnpool_backbones.ops.fusing import plain


@plain
class DepthwiseConv2d(nn.Conv2d):
    """Depthwise convolution of stride 1 that keeps the size of the map.

    Args:
        channels: Channels C of the map.
        kernel_size: Odd side of the square kernel.
        bias: Whether there is a bias.
    """

    def __init__(self, channels: int, kernel_size: int, bias: bool = True):
        super().__init__(
            channels, channels, kernel_size, padding=kernel_size // 2, groups=channels, bias=bias
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.padding_mode != 'zeros':
            return super().forward(x)
        return depthwise_conv(x, self.weight, self.bias)
