"""Norms of maps by the names that variants give them."""

from torch import nn

from attnpool_backbones.layers.global_norm import GlobalNorm
from attnpool_backbones.layers.norm import LayerNorm2d

NORMS = {
    'global': GlobalNorm,
    'layer': LayerNorm2d,
    'batch': lambda channels, eps, bias: nn.BatchNorm2d(channels, eps=eps),
    'none': lambda channels, eps, bias: nn.Identity(),
}
"""Norms by name: over channels and positions of a sample (GroupNorm with one group), over the
channels of each position, over batch and positions, or none."""
