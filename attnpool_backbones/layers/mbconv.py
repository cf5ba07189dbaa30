"""Pre-norm inverted bottleneck of CoAtNet (arXiv 2106.04803, A.1)."""

import torch
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from attnpool_backbones.layers.activations import GELU, SiLU
from attnpool_backbones.layers.folding import fold_norm_after, fold_norm_before
from attnpool_backbones.layers.free_norms import FreeNorms
from attnpool_backbones.layers.squeeze_excite import SqueezeExcite, excited
from attnpool_backbones.ops.conv_norm import conv_norm
from attnpool_backbones.ops.fusing import own

EXPANSION = 4
"""Width of the bottleneck's middle over that of the block's output (or input)."""
SE_RATIO = 0.25


class MBConv(FreeNorms):
    """BN, 1x1, BN, act, depthwise 3x3, BN, act, squeeze-and-excitation, 1x1; plus a shortcut.

    No norm follows the last convolution. At a change of resolution the shortcut is pooled, at a
    change of width it gets a 1x1 convolution.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: 1 or 2.
        stride_in: What has the stride: ``'1x1'`` the first convolution (arXiv 2106.04803, eq. 5),
            ``'dw'`` the depthwise one, ``'pool'`` 2x2 average pooling before the first.
        pool: Pooling of the shortcut; needed for stride 2 only.
        expand_from: ``'out'`` widens to 4 times the output and squeezes to 1/4 of the output,
            ``'in'`` widens to 4 times the input and squeezes to 1/4 of that.
        act: Activation.
        act_before: Whether the activation follows the first norm too.
        se_act: Activation in the squeeze-and-excitation.
        se_early: Puts the squeeze-and-excitation before the depthwise convolution's norm.
        bias: Whether the shortcut's and the last convolution have a bias.
        eps: Of the norms.
        drop_path: Probability of dropping the branch of a sample.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        stride_in: str = '1x1',
        pool: nn.Module | None = None,
        expand_from: str = 'out',
        act: type[nn.Module] = GELU,
        act_before: bool = False,
        se_act: type[nn.Module] = SiLU,
        se_early: bool = False,
        bias: bool = True,
        eps: float = 1e-5,
        drop_path: float = 0.0,
    ):
        super().__init__()
        middle = EXPANSION * (out_channels if expand_from == 'out' else in_channels)
        squeezed = max(1, int(SE_RATIO * (out_channels if expand_from == 'out' else middle)))
        strides = {name: stride if stride_in == name else 1 for name in ('1x1', 'dw', 'pool')}

        self.shortcut_pool = pool if stride > 1 else nn.Identity()
        self.shortcut = nn.Identity()
        if in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, bias=bias)
        self.norm = nn.BatchNorm2d(in_channels, eps)
        self.act_before = act() if act_before else nn.Identity()
        self.pool = nn.Identity()
        if strides['pool'] > 1:
            self.pool = nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False)
        self.expand = nn.Conv2d(in_channels, middle, 1, stride=strides['1x1'], bias=False)
        self.expand_norm = nn.BatchNorm2d(middle, eps)
        self.dwconv = nn.Conv2d(
            middle, middle, 3, stride=strides['dw'], padding=1, groups=middle, bias=False
        )
        self.dwconv_norm = nn.BatchNorm2d(middle, eps)
        self.act = act()
        self.se = SqueezeExcite(middle, squeezed, se_act)
        self.se_early = se_early
        self.project = nn.Conv2d(middle, out_channels, 1, bias=bias)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Maps B, C, H, W to B, C', ceil(H / stride), ceil(W / stride)."""
        shortcut = self.shortcut(self.shortcut_pool(x))
        y = self._expanded(x)  # B, M, H, W (or halved already)
        if self.se_early:
            y = excited(self.dwconv(y), self.se, self.dwconv)
            y = self.act(own(self.dwconv_norm(y), self.dwconv_norm))
        else:
            y = conv_norm(y, self.dwconv, self.dwconv_norm, act=self.act)
            y = excited(y, self.se, self.dwconv, self.dwconv_norm, self.act)
        return shortcut + self.drop_path(self.project(y))

    def _expanded(self, x: Tensor) -> Tensor:
        if isinstance(self.act_before, nn.Identity):
            return conv_norm(x, self.expand, self.expand_norm, self.norm, self.pool, self.act)
        y = self.act_before(own(self.norm(x), self.norm))
        return conv_norm(y, self.expand, self.expand_norm, pool=self.pool, act=self.act)

    def free_norms(self) -> tuple[str, ...]:
        """Returns the first norm's name, and the last one's if a gate stands before it."""
        return ('norm', 'dwconv_norm') if self.se_early else ('norm',)

    @torch.no_grad()
    def fold(self) -> None:
        """Folds the norms into the convolutions for inference."""
        if isinstance(self.act_before, nn.Identity):
            self.norm = fold_norm_before(self.norm, self.expand)
        self.expand_norm = fold_norm_after(self.expand, self.expand_norm)
        if not self.se_early:
            self.dwconv_norm = fold_norm_after(self.dwconv, self.dwconv_norm)
