"""The transformer block on maps, which may halve them (arXiv 2106.04803, section 3.2)."""

import torch
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from attnpool_backbones.layers.folding import fold_norm_before, fold_scale_after
from attnpool_backbones.layers.free_norms import FreeNorms
from attnpool_backbones.layers.grid_attention import GridAttention
from attnpool_backbones.layers.mlp import ChannelMlp

MLP_RATIO = 4


class TransformerBlock(FreeNorms):
    """Attention and MLP, each after a norm and with a shortcut.

    At a change of resolution the normalised map and the shortcut are pooled (arXiv 2106.04803,
    eq. 4); at a change of width the shortcut gets a 1x1 convolution.

    Args:
        norm1: Norm before the attention, ``in_channels``.
        attn: The attention, ``in_channels`` -> ``out_channels``.
        norm2: Norm before the MLP, ``out_channels``.
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        pool: Pooling of stride 2. Default: none.
        shortcut_bias: Whether the shortcut's convolution has a bias.
        layer_scale_init: Initial scale of each channel of both branches (arXiv 2103.17239).
            Default: no layer scale.
        drop_path: Probability of dropping a branch of a sample.
    """

    def __init__(
        self,
        norm1: nn.Module,
        attn: GridAttention,
        norm2: nn.Module,
        in_channels: int,
        out_channels: int,
        pool: nn.Module | None = None,
        shortcut_bias: bool = True,
        layer_scale_init: float | None = None,
        drop_path: float = 0.0,
    ):
        super().__init__()
        self.pool = nn.Identity() if pool is None else pool
        self.shortcut = nn.Identity()
        if in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, bias=shortcut_bias)
        self.norm1 = norm1
        self.attn = attn
        self.norm2 = norm2
        self.mlp = ChannelMlp(out_channels, MLP_RATIO * out_channels)
        self.gamma1 = self.gamma2 = None
        if layer_scale_init is not None:
            self.gamma1 = nn.Parameter(torch.full((out_channels,), layer_scale_init))
            self.gamma2 = nn.Parameter(torch.full((out_channels,), layer_scale_init))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Maps B, C, H, W to B, C', H, W, or half the sides if there is pooling."""
        y = self.attn(self.pool(self.norm1(x)), self.gamma1)
        x = self.shortcut(self.pool(x)) + self.drop_path(y)
        return x + self.drop_path(self.mlp(self.norm2(x), self.gamma2))

    def free_norms(self) -> tuple[str, ...]:
        """Returns the names of both norms."""
        return 'norm1', 'norm2'

    @torch.no_grad()
    def fold(self) -> None:
        """Folds layer scales and the norms' affine part (BatchNorm: all of it) for inference."""
        if not isinstance(self.pool, nn.MaxPool2d):  # A negative scale turns maxima into minima.
            self.norm1 = fold_norm_before(self.norm1, self.attn.qkv)
        self.norm2 = fold_norm_before(self.norm2, self.mlp.fc1)
        if self.gamma1 is not None:
            self.gamma1 = fold_scale_after(self.attn.proj, self.gamma1)
        if self.gamma2 is not None:
            self.gamma2 = fold_scale_after(self.mlp.fc2, self.gamma2)
