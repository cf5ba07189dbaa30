"""Spatial group-wise enhance (arXiv 1905.09646)."""

import torch
from torch import Tensor, nn

from attnpool_backbones.ops.fusing import plain
from attnpool_backbones.ops.sge import sge, sge_gate
from attnpool_backbones.registry import MODELS


@MODELS.register_module()
@plain
class SGE(nn.Module):
    """Scales each group of channels by a gate over positions (arXiv 1905.09646, eq. 1-5).

    In each group the gate measures how alike a position and the group's spatial mean are: their
    dot product, normalised over the positions of the map (unbiased standard deviation, ``eps``
    added to it), then a scale and a shift per group and a sigmoid. No running statistics.

    Statistics are float32 for float16 and bfloat16 maps. A map with one position, where the
    deviation does not exist, is scaled by sigmoid(bias).

    Also a plugin of mmdet's and mmseg's ResNet:
    ``plugins=[dict(cfg=dict(type='attnpool_backbones.SGE'), position='after_conv3')]``.

    Args:
        in_channels: Channels C of the map.
        groups: Groups G of adjacent channels; a divisor of C.
        eps: Added to the standard deviation.
        scale_init: Initial scale of every group. Default: 0, no gate depends on its map at first.
        shift_init: Initial shift of every group. Default: 1.
        normalize: Whether dot products are normalised over the positions. Without it, an ablation
            of the article, the gate saturates where features are large. Default: True.

    Raises:
        ValueError: ``groups`` does not divide ``in_channels``.
    """

    _abbr_ = 'sge'

    undecayed = ('weight', 'bias')

    def __init__(
        self,
        in_channels: int,
        groups: int = 64,
        eps: float = 1e-5,
        scale_init: float = 0.0,
        shift_init: float = 1.0,
        normalize: bool = True,
    ):
        super().__init__()
        if groups < 1 or in_channels % groups:
            raise ValueError(
                f'SGE needs a number of groups that divides its channels, '
                f'not in_channels={in_channels}, groups={groups}'
            )
        self.groups = groups
        self.eps = eps
        self.scale_init, self.shift_init = scale_init, shift_init
        self.normalize = normalize
        self.weight = nn.Parameter(torch.empty(1, groups, 1, 1))
        self.bias = nn.Parameter(torch.empty(1, groups, 1, 1))
        self.init_weights()

    def init_weights(self) -> None:
        """Sets scales and shifts; 0 and 1 start every gate as sigmoid(1), whatever the map."""
        nn.init.constant_(self.weight, self.scale_init)
        nn.init.constant_(self.bias, self.shift_init)

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """Enhances a map; see :func:`attnpool_backbones.ops.sge.sge`."""
        return sge(x, self.weight, self.bias, self.eps, shortcut, self.normalize)

    def gate(self, x: Tensor) -> Tensor:
        """Returns the gate B, G, H, W of a map B, C, H, W, at least float32."""
        return sge_gate(x, self.weight, self.bias, self.eps, self.normalize)

    def extra_repr(self) -> str:
        return f'groups={self.groups}, eps={self.eps}, normalize={self.normalize}'
