"""Selective kernels (SKNet, arXiv 1903.06586), as PytorchInsight builds them."""

from torch import Tensor, nn
from torch.nn import functional as F

from attnpool_backbones.layers.channel_attention import norm_of_vectors, squeezed_width
from attnpool_backbones.layers.norm import build_map_norm
from attnpool_backbones.ops.averages import position_mean
from attnpool_backbones.ops.conv_norm import conv_norm
from attnpool_backbones.ops.fusing import is_unseen


class SelectiveKernel(nn.Module):
    """A dense and a grouped 3x3 convolution, mixed per channel (after arXiv 1903.06586, eq. 1-6).

    It takes the place of a bottleneck's 3x3 convolution with norm and ReLU. In SGE's official code
    (PytorchInsight), from which this is, the branches have kernels of the same size, unlike the
    paper's, and the bottleneck of the mixing weights has no lower bound.

    Args:
        channels: Input and output channels C.
        stride: Of both convolutions.
        groups: Of the grouped one; a divisor of C.
        reduction: C over the width of the bottleneck that the mixing weights come from.
        norm_cfg: Of all norms.

    Raises:
        ValueError: ``groups`` does not divide ``channels``, or ``reduction`` leaves no channel.
    """

    def __init__(self, channels: int, stride: int, groups: int, reduction: int, norm_cfg: dict):
        super().__init__()
        if groups < 1 or channels % groups:
            raise ValueError(
                f'SelectiveKernel needs a number of groups that divides its channels, '
                f'not channels={channels}, groups={groups}'
            )
        squeezed = squeezed_width(channels, reduction)
        # Each norm comes after its convolution, as the folding of norms expects.
        self.conv = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn = build_map_norm(norm_cfg, channels)
        self.conv_grouped = nn.Conv2d(
            channels, channels, 3, stride, padding=1, groups=groups, bias=False
        )
        self.bn_grouped = build_map_norm(norm_cfg, channels)
        self.reduce = nn.Conv2d(channels, squeezed, 1, bias=False)
        self.reduce_bn = build_map_norm(norm_cfg, squeezed)
        self.expand = nn.Conv2d(squeezed, 2 * channels, 1, bias=False)
        for conv in (self.conv, self.conv_grouped, self.reduce, self.expand):
            nn.init.kaiming_normal_(conv.weight, mode='fan_out', nonlinearity='relu')

    def forward(self, x: Tensor) -> Tensor:
        dense, grouped = self._branches(x)
        return grouped.lerp(dense, self._weight(dense, grouped))

    def gate(self, x: Tensor) -> Tensor:
        """Returns the weight of the dense convolution, B, C, 1, 1, for a map B, C, H, W."""
        return self._weight(*self._branches(x))

    def _branches(self, x: Tensor) -> tuple[Tensor, Tensor]:
        layers = self.conv, self.bn
        dense = F.relu(conv_norm(x, *layers), inplace=is_unseen(*layers))  # B, C, H/s, W/s
        layers = self.conv_grouped, self.bn_grouped
        return dense, F.relu(conv_norm(x, *layers), inplace=is_unseen(*layers))

    def _weight(self, dense: Tensor, grouped: Tensor) -> Tensor:
        pooled = position_mean(dense) + position_mean(grouped)
        hidden = F.relu(norm_of_vectors(self.reduce_bn, self.reduce(pooled)))  # B, C/r, 1, 1
        logits = self.expand(hidden)  # B, 2C, 1, 1
        logits_dense, logits_grouped = logits.chunk(2, dim=1)
        # A softmax over two branches is a sigmoid of the difference.
        return (logits_dense - logits_grouped).sigmoid().to(dense.dtype)
