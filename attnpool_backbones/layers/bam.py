"""Bottleneck attention module (arXiv 1807.06514), as PytorchInsight builds it."""

from torch import Tensor, nn
from torch.nn import functional as F

from attnpool_backbones.layers.channel_attention import norm_of_vectors, squeezed_width
from attnpool_backbones.layers.norm import build_map_norm
from attnpool_backbones.ops.averages import position_mean


class BamChannelGate(nn.Module):
    """One logit per channel from the global average (arXiv 1807.06514, eq. 3).

    Args:
        channels: Channels C of the map.
        squeezed: Width of the bottleneck.
        norm_cfg: Of the norm in the bottleneck.
    """

    def __init__(self, channels: int, squeezed: int, norm_cfg: dict):
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.norm = build_map_norm(norm_cfg, squeezed)
        self.expand = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.reduce(position_mean(x))  # B, C/r, 1, 1
        return self.expand(F.relu(norm_of_vectors(self.norm, hidden)))  # B, C, 1, 1


class BamSpatialGate(nn.Sequential):
    """One logit per position from two dilated convolutions (arXiv 1807.06514, eq. 4).

    Args:
        channels: Channels of the map.
        squeezed: Channels of the dilated 3x3 convolutions.
        norm_cfg: Of the norms.
        dilation: Of the 3x3 convolutions.
    """

    def __init__(self, channels: int, squeezed: int, norm_cfg: dict, dilation: int = 4):
        layers: list[nn.Module] = []
        for i, width in enumerate((channels, squeezed, squeezed)):
            options = dict(padding=dilation, dilation=dilation) if i else {}
            layers += [
                nn.Conv2d(width, squeezed, 3 if i else 1, **options),
                build_map_norm(norm_cfg, squeezed),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers, nn.Conv2d(squeezed, 1, 1))


class BAM(nn.Module):
    """Scales a map between two stages by 1 + sigmoid(channel * spatial) (arXiv 1807.06514, eq. 1).

    In SGE's official code (PytorchInsight), from which this is, the two logits are multiplied.
    The average is taken over the whole map, as in its detection code; its classification code does
    so for square maps only.

    Args:
        in_channels: Channels C of the map.
        reduction: C over the width of both gates' bottlenecks.
        norm_cfg: Of all norms. Default: BatchNorm.

    Raises:
        ValueError: ``reduction`` leaves no channel.
    """

    _abbr_ = 'bam'

    def __init__(self, in_channels: int, reduction: int = 16, norm_cfg: dict | None = None):
        super().__init__()
        norm_cfg = norm_cfg or dict(type='BN')
        squeezed = squeezed_width(in_channels, reduction)
        self.channel = BamChannelGate(in_channels, squeezed, norm_cfg)
        self.spatial = BamSpatialGate(in_channels, squeezed, norm_cfg)
        self.init_weights()

    def init_weights(self) -> None:
        """Draws weights as PytorchInsight does; all biases are 0."""
        for layer in (*self.channel.children(), *self.spatial):
            if hasattr(layer, 'reset_parameters'):
                layer.reset_parameters()
            if isinstance(layer, nn.Conv2d):
                nn.init.zeros_(layer.bias)
        for layer in self.spatial:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode='fan_out', nonlinearity='relu')

    def forward(self, x: Tensor) -> Tensor:
        return x.addcmul(x, self.gate(x))

    def gate(self, x: Tensor) -> Tensor:
        """Returns the gate B, C, H, W of a map B, C, H, W, to which the unit adds 1."""
        return (self.channel(x) * self.spatial(x)).sigmoid()
