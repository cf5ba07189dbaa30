"""The block of ConvNeXt (arXiv 2201.03545)."""

import torch
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from attnpool_backbones.layers.folding import fold_norm_before, fold_scale_after
from attnpool_backbones.layers.mlp import ChannelMlp
from attnpool_backbones.layers.norm import LayerNorm2d
from attnpool_backbones.layers.stride2_pool import stride2_pool

MLP_RATIO = 4


class ConvNeXtBlock(nn.Module):
    """Depthwise 7x7, LayerNorm, MLP, layer scale; with a shortcut.

    At a change of resolution the shortcut is pooled by 2x2 averages, at a change of width it gets
    a 1x1 convolution.

    Args:
        in_channels: Channels of the input; they divide those of the output.
        out_channels: Channels of the output.
        stride: Of the depthwise convolution, 1 or 2.
        layer_scale_init: Initial layer scale. None: no layer scale.
        eps: Of the norm.
        drop_path: Probability of dropping the branch of a sample.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        layer_scale_init: float | None = 1e-6,
        eps: float = 1e-6,
        drop_path: float = 0.0,
    ):
        super().__init__()
        self.pool = stride2_pool('avg2') if stride > 1 else nn.Identity()
        self.shortcut = nn.Identity()
        if in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1)
        self.dwconv = nn.Conv2d(
            in_channels, out_channels, 7, stride=stride, padding=3, groups=in_channels
        )
        self.norm = LayerNorm2d(out_channels, eps)
        self.mlp = ChannelMlp(out_channels, MLP_RATIO * out_channels)
        self.gamma = None
        if layer_scale_init is not None:
            self.gamma = nn.Parameter(torch.full((out_channels,), layer_scale_init))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Maps B, C, H, W to B, C', ceil(H / stride), ceil(W / stride)."""
        y = self.mlp(self.norm(self.dwconv(x)), self.gamma)
        return self.shortcut(self.pool(x)) + self.drop_path(y)

    @torch.no_grad()
    def fold(self) -> None:
        """Folds layer scale and the norm's affine part into the MLP for inference."""
        self.norm = fold_norm_before(self.norm, self.mlp.fc1)
        if self.gamma is not None:
            self.gamma = fold_scale_after(self.mlp.fc2, self.gamma)
