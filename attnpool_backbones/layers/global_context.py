"""Global context block (GCNet, arXiv 1904.11492)."""

from torch import Tensor, nn

from attnpool_backbones.layers.attention_pool import AttentionPool2d, take_averages
from attnpool_backbones.layers.channel_attention import squeezed_width
from attnpool_backbones.ops.fusing import plain
from attnpool_backbones.ops.gate import shifted_sum
from attnpool_backbones.ops.global_context import global_context
from attnpool_backbones.registry import MODELS


@MODELS.register_module()
@plain
class GC(nn.Module):
    """Adds to every position one vector, attended from the whole map (arXiv 1904.11492, eq. 5).

    One attention map for all queries, a bottleneck with layer norm, fusion by addition. Parameters
    have the names of mmcv's ``ContextBlock``.

    Also a plugin of mmdet's and mmseg's ResNet:
    ``plugins=[dict(cfg=dict(type='attnpool_backbones.GC'), position='after_conv3')]``.

    Args:
        in_channels: Channels C of the map.
        reduction: C over the width of the bottleneck.
        pool_heads: Heads of :class:`AttentionPool2d` in place of the one published attention map;
            it starts as the average. 0: as published.

    Raises:
        ValueError: ``reduction`` leaves no channel, or the heads do not divide the channels.
    """

    _abbr_ = 'gc'

    def __init__(self, in_channels: int, reduction: int = 16, pool_heads: int = 0):
        super().__init__()
        squeezed = squeezed_width(in_channels, reduction)
        self.pool = AttentionPool2d(in_channels, heads=pool_heads) if pool_heads else None
        self.conv_mask = None if pool_heads else nn.Conv2d(in_channels, 1, 1)
        self.channel_add_conv = nn.Sequential(
            nn.Conv2d(in_channels, squeezed, 1),
            nn.LayerNorm([squeezed, 1, 1]),
            nn.ReLU(inplace=True),
            nn.Conv2d(squeezed, in_channels, 1),
        )
        self.init_weights()
        if pool_heads:
            take_averages(self)

    def init_weights(self) -> None:
        """Draws weights as GCNet does; the last layer's weight is 0, its bias torch's default."""
        reduce, norm, _, expand = self.channel_add_conv
        for layer in (reduce, norm, expand):
            layer.reset_parameters()
        if self.pool is not None:
            nn.init.zeros_(self.pool.query)
        else:
            self.conv_mask.reset_parameters()
            nn.init.kaiming_normal_(self.conv_mask.weight, mode='fan_in', nonlinearity='relu')
            nn.init.zeros_(self.conv_mask.bias)
        nn.init.zeros_(expand.weight)

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """Adds the context to a map B, C, H, W.

        Args:
            x: The map; overwritten where no gradient is wanted and there is a ``shortcut``.
            shortcut: Map like ``x``: returns relu(shortcut + the result). Default: none.
        """
        context = global_context(x, self.conv_mask) if self.pool is None else self.pool(x)
        context = self.channel_add_conv(context)  # B, C, 1, 1
        return x + context if shortcut is None else shifted_sum(x, context, shortcut)

    def gate(self, x: Tensor) -> Tensor:
        """Returns the weights of the positions, each head's with a sum of 1, of a map B, C, H, W.

        Returns:
            B, heads, H, W; as published there is one head.
        """
        scores = self.conv_mask(x) if self.pool is None else self.pool.scores(x)
        return scores.flatten(2).softmax(dim=-1).unflatten(2, x.shape[2:])
