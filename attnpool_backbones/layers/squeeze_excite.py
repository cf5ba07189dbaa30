"""Squeeze-and-excitation (arXiv 1709.01507)."""

from torch import Tensor, nn

from attnpool_backbones.layers.activations import ReLU
from attnpool_backbones.layers.attention_pool import AttentionPool2d, take_averages
from attnpool_backbones.layers.channel_attention import squeezed_width
from attnpool_backbones.ops.averages import position_mean
from attnpool_backbones.ops.conv_norm import conv_norm
from attnpool_backbones.ops.fusing import may_fuse, own, plain
from attnpool_backbones.ops.gate import gated, gated_sum
from attnpool_backbones.registry import MODELS


@plain
class SqueezeExcite(nn.Module):
    """Scales each channel by a gate computed from the global average (arXiv 1709.01507, eq. 2-4).

    Args:
        channels: Channels C of the map.
        squeezed: Width of the bottleneck between the two 1x1 convolutions.
        act: Activation of the bottleneck.
        pool_heads: Heads of attention pooling in place of the average, 0 for the average.
    """

    def __init__(
        self, channels: int, squeezed: int, act: type[nn.Module] = ReLU, pool_heads: int = 0
    ):
        super().__init__()
        self.pool = AttentionPool2d(channels, heads=pool_heads) if pool_heads else None
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.act = act()
        self.expand = nn.Conv2d(squeezed, channels, 1)
        if pool_heads:
            take_averages(self)

    def forward(self, x: Tensor, inplace: bool = False) -> Tensor:
        """Scales a map.

        Args:
            x: Map B, C, H, W.
            inplace: Whether ``x`` may be overwritten where no gradient is wanted.

        Returns:
            Map B, C, H, W.
        """
        return gated(*self.map_and_gate(x), inplace)

    def gate(self, x: Tensor) -> Tensor:
        """Returns the gate B, C, 1, 1 of a map B, C, H, W."""
        return self.map_and_gate(x)[1]

    def map_and_gate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns a map B, C, H, W, which may only be multiplied by its gate, and the gate."""
        # B, C, 1, 1
        x, pooled = (x, position_mean(x)) if self.pool is None else self.pool(x, with_map=True)
        squeezed = conv_norm(pooled, self.reduce, act=self.act)  # B, squeezed, 1, 1
        return x, conv_norm(squeezed, self.expand).sigmoid()


def excited(x: Tensor, se: nn.Module, *before: nn.Module) -> Tensor:
    """Calls a squeeze-and-excitation, or what stands in for it, in place where it can.

    Args:
        x: Map B, C, H, W.
        se: The layer.
        *before: The layers that ``x`` is from, see :func:`own`.
    """
    if type(se) is SqueezeExcite and may_fuse(se):
        return se(own(x, *before), inplace=True)
    return se(x)


@MODELS.register_module()
@plain
class SE(SqueezeExcite):
    """:class:`SqueezeExcite` with the constructor of an OpenMMLab plugin.

    For mmdet's and mmseg's ResNet:
    ``plugins=[dict(cfg=dict(type='attnpool_backbones.SE'), position='after_conv3')]``.

    Args:
        in_channels: Channels C of the map.
        reduction: C over the width of the bottleneck.
        pool_heads: Heads of attention pooling in place of the average, 0 for the average.

    Raises:
        ValueError: ``reduction`` leaves no channel.
    """

    _abbr_ = 'se'

    def __init__(self, in_channels: int, reduction: int = 16, pool_heads: int = 0):
        super().__init__(in_channels, squeezed_width(in_channels, reduction), pool_heads=pool_heads)

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """Scales a map B, C, H, W.

        Args:
            x: The map; overwritten where no gradient is wanted and there is a ``shortcut``.
            shortcut: Map like ``x``: returns relu(shortcut + scaled x). Default: none.
        """
        return (
            super().forward(x) if shortcut is None else gated_sum(*self.map_and_gate(x), shortcut)
        )

    def init_weights(self) -> None:
        """Draws weights as torch does for linear layers; the pool starts as an average."""
        self.reduce.reset_parameters()
        self.expand.reset_parameters()
        if self.pool is not None:
            nn.init.zeros_(self.pool.query)
