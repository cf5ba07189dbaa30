"""Convolutional block attention module (arXiv 1807.06521)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnpool_backbones.layers.channel_attention import squeezed_width
from attnpool_backbones.ops.fusing import may_fuse, plain
from attnpool_backbones.ops.gate import gated, gated_sum
from attnpool_backbones.ops.mean_and_max import channel_mean_and_max, position_mean_and_max
from attnpool_backbones.registry import MODELS


@plain
class ChannelGate(nn.Module):
    """Scales each channel by a gate from its average and its maximum (arXiv 1807.06521, eq. 2).

    Args:
        channels: Channels C of the map.
        squeezed: Width of the bottleneck that both vectors go through.
    """

    def __init__(self, channels: int, squeezed: int):
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.expand = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)

    def gate(self, x: Tensor) -> Tensor:
        """Returns the gate B, C, 1, 1 of a map B, C, H, W."""
        pooled = position_mean_and_max(x)
        average, maximum = (self.expand(F.relu(self.reduce(p))) for p in pooled)  # B, C, 1, 1
        return (average + maximum).sigmoid()


@plain
class SpatialGate(nn.Module):
    """Scales each position by a gate from maximum and mean over channels (1807.06521, eq. 3).

    The norm after the convolution and the missing activation are those of the reference code.
    """

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.bn = nn.BatchNorm2d(1, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)

    def gate(self, x: Tensor) -> Tensor:
        """Returns the gate B, 1, H, W of a map B, C, H, W."""
        average, maximum = channel_mean_and_max(x)
        return self.bn(self.conv(torch.cat([maximum, average], dim=1))).sigmoid()


@MODELS.register_module()
@plain
class CBAM(nn.Module):
    """Channel attention, then spatial attention (arXiv 1807.06521, eq. 1).

    Also a plugin of mmdet's and mmseg's ResNet:
    ``plugins=[dict(cfg=dict(type='attnpool_backbones.CBAM'), position='after_conv3')]``.

    Args:
        in_channels: Channels C of the map.
        reduction: C over the width of the channel gate's bottleneck.

    Raises:
        ValueError: ``reduction`` leaves no channel.
    """

    _abbr_ = 'cbam'

    def __init__(self, in_channels: int, reduction: int = 16):
        super().__init__()
        self.channel = ChannelGate(in_channels, squeezed_width(in_channels, reduction))
        self.spatial = SpatialGate()
        self.init_weights()

    def init_weights(self) -> None:
        """Draws weights as PytorchInsight does; the spatial gate starts at 0.5 everywhere."""
        for conv in (self.channel.reduce, self.channel.expand):
            conv.reset_parameters()
            nn.init.zeros_(conv.bias)
        nn.init.kaiming_normal_(self.spatial.conv.weight, mode='fan_out', nonlinearity='relu')
        nn.init.zeros_(self.spatial.bn.weight)
        nn.init.zeros_(self.spatial.bn.bias)

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """Scales a map B, C, H, W.

        Args:
            x: The map; overwritten where no gradient is wanted and there is a ``shortcut``.
            shortcut: Map like ``x``: returns relu(shortcut + scaled x). Default: none.
        """
        if shortcut is None:
            return self.spatial(self.channel(x))
        if not may_fuse(self.channel, self.spatial):
            return torch.relu(shortcut + self.spatial(self.channel(x)))
        x = gated(x, self.channel.gate(x), inplace=True)
        return gated_sum(x, self.spatial.gate(x), shortcut)

    def gate(self, x: Tensor) -> Tensor:
        """Returns the product of both gates, B, C, H, W, of a map B, C, H, W."""
        channel = self.channel.gate(x)  # B, C, 1, 1
        return channel * self.spatial.gate(x * channel)
