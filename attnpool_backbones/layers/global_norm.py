"""Normalisation of a map over all its channels and positions."""

from torch import Tensor, nn

from attnpool_backbones.ops.fusing import plain
from attnpool_backbones.ops.global_norm import global_norm


@plain
class GlobalNorm(nn.GroupNorm):
    """Group normalisation (arXiv 1803.08494) with a single group.

    Mean and variance of a sample are taken over C, H and W together, so every position depends on
    the whole map, padding included; scale and shift are per channel. The MetaFormer papers call
    it modified layer normalisation; it is not the layer normalisation of :class:`LayerNorm2d`.

    Args:
        num_channels: Channels C of the map.
        eps: Added to the variance.
        bias: Whether the affine transform has a shift.
    """

    def __init__(self, num_channels: int, eps: float = 1e-5, bias: bool = True):
        super().__init__(1, num_channels, eps=eps)
        if not bias:
            self.register_parameter('bias', None)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """Computes ``scale * norm(x)``.

        Args:
            x: Map B, C, H, W.
            scale: One factor per channel, C. Default: 1.

        Returns:
            Map B, C, H, W.
        """
        return global_norm(x, self.weight, self.bias, self.eps, scale)
