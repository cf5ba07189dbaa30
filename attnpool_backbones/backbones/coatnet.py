"""CoAtNet: convolutional stages, then stages of relative attention.

Marrying Convolution and Attention for All Data Sizes, arXiv 2106.04803. There is no official
release; what the paper leaves open follows timm, whose public weights load.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from attnpool_backbones.backbones.base import DenseBackbone, Stage
from attnpool_backbones.layers.conv_norm import conv_norm, fixed_affine, fold_norms
from attnpool_backbones.layers.folding import fold_affine_before, fold_scale_after
from attnpool_backbones.layers.grid_attention import GridAttention, scaled_linear
from attnpool_backbones.layers.mbconv import MBConv
from attnpool_backbones.layers.norm import LayerNorm2d
from attnpool_backbones.layers.relative_bias import RelativeBiasMlp, RelativeBiasTable
from attnpool_backbones.registry import MODELS

EPS = 1e-6
"""Of the norms in transformer and ConvNeXt blocks."""
MLP_RATIO = 4

ACTIVATIONS = {'gelu': nn.GELU, 'silu': nn.SiLU, 'relu': nn.ReLU}


@dataclass(frozen=True, kw_only=True)
class CoAtNetArch:
    """The numbers and choices that make a CoAtNet; the defaults are the paper's CoAtNet-0."""

    layout: str | tuple[str, ...] = 'CCTT'
    """Kind of each stage's blocks: ``C`` convolution, ``T`` transformer, ``CT`` one then the
    other."""
    depths: tuple[int | tuple[int, int], ...] = (2, 3, 5, 2)
    """Blocks of each stage; two numbers for ``CT``."""
    widths: tuple[int | tuple[int, int], ...] = (96, 192, 384, 768)
    """Channels of each stage; two numbers for ``CT``."""
    stem_widths: tuple[int, int] = (64, 64)
    """Channels of the stem's two 3x3 convolutions; the first has stride 2."""
    patch_size: int | None = None
    """Instead of that stem and of downsampling between the stages (ViT-REL): one convolution of
    this size and stride, a power of two. The stem's width is that of the first stage."""
    head_dim: int = 32
    """Channels of an attention head."""
    bias: str = 'table'
    """Relative bias: ``'table'``, ``'mlp'`` of the offset's logarithm, or ``'none'``."""
    bias_hidden: int = 512
    """Width of the bias's MLP."""
    stride_in: str = '1x1'
    """What has the stride in a convolution block: ``'1x1'`` (paper, eq. 5), ``'dw'``, ``'pool'``."""
    pool: str = 'max2'
    """Pooling of shortcuts and in front of attention: ``'max2'``, ``'max3'``, ``'avg2'`` (the
    number is the kernel's size)."""
    conv: str = 'mbconv'
    """Convolution block: ``'mbconv'`` or ``'convnext'``."""
    expand_from: str = 'out'
    """Whether MBConv widens to 4 times its ``'out'`` or ``'in'`` put."""
    conv_act: str = 'gelu'
    """Activation of stem and MBConv: ``'gelu'`` or ``'silu'``."""
    act_before: bool = False
    """Whether the activation follows MBConv's first norm too."""
    se_act: str = 'silu'
    """Activation of the squeeze-and-excitation: ``'silu'`` or ``'relu'``."""
    se_early: bool = False
    """Whether squeeze-and-excitation stands in front of the depthwise convolution's norm."""
    conv_bias: bool = True
    """Whether MBConv's shortcut and last convolution have a bias."""
    attention_width: str = 'out'
    """Width of the attention where the width changes: that of the block's ``'out'`` or ``'in'``
    put."""
    shortcut_bias: bool = True
    """Whether the transformer block's shortcut convolution has a bias."""
    norm: str = 'LN'
    """Norm of the transformer blocks and of the outputs: ``'LN'`` or ``'BN'``."""
    layer_scale_init: float | None = None
    """Initial layer scale of the transformer blocks (arXiv 2103.17239); None: no layer scale."""
    conv_layer_scale_init: float | None = 1e-5
    """Likewise of the ConvNeXt blocks."""

    @property
    def strides(self) -> tuple[int, ...]:
        """Stride of the map behind each stage."""
        if self.patch_size is not None:
            return (self.patch_size,) * len(self.layout)
        return tuple(4 << stage for stage in range(len(self.layout)))

    def segments(self, stage: int) -> list[tuple[str, int, int]]:
        """Returns kind, number and channels of the equal blocks of which a stage consists."""
        kinds, depths, widths = self.layout[stage], self.depths[stage], self.widths[stage]
        if isinstance(depths, int):
            depths = (depths,)
        if isinstance(widths, int):
            widths = (widths,) * len(depths)
        return list(zip(kinds, depths, widths, strict=True))


_CHOICES = {
    'bias': ('table', 'mlp', 'none'),
    'stride_in': ('1x1', 'dw', 'pool'),
    'pool': ('max2', 'max3', 'avg2'),
    'conv': ('mbconv', 'convnext'),
    'expand_from': ('out', 'in'),
    'conv_act': tuple(ACTIVATIONS),
    'se_act': tuple(ACTIVATIONS),
    'attention_width': ('out', 'in'),
    'norm': ('LN', 'BN'),
}

_PAPER = {
    '0': CoAtNetArch(),
    '1': CoAtNetArch(depths=(2, 6, 14, 2)),
    '2': CoAtNetArch(
        depths=(2, 6, 14, 2), widths=(128, 256, 512, 1024), stem_widths=(128, 128)
    ),
    '3': CoAtNetArch(
        depths=(2, 6, 14, 2), widths=(192, 384, 768, 1536), stem_widths=(192, 192)
    ),
    '4': CoAtNetArch(
        depths=(2, 12, 28, 2), widths=(192, 384, 768, 1536), stem_widths=(192, 192)
    ),
    '5': CoAtNetArch(
        depths=(2, 12, 28, 2),
        widths=(256, 512, 1280, 2048),
        stem_widths=(192, 192),
        head_dim=64,
    ),
    '6': CoAtNetArch(
        layout=('C', 'C', 'CT', 'T'),
        depths=(2, 4, (8, 42), 2),
        widths=(192, 384, (768, 1536), 2048),
        stem_widths=(192, 192),
        head_dim=128,
    ),
    '7': CoAtNetArch(
        layout=('C', 'C', 'CT', 'T'),
        depths=(2, 4, (8, 42), 2),
        widths=(256, 512, (1024, 2048), 3072),
        stem_widths=(192, 192),
        head_dim=128,
    ),
}

# timm's own models. First those that widen from the input, then the differences of the older ones.
_RW = CoAtNetArch(
    stem_widths=(32, 64),
    expand_from='in',
    conv_act='silu',
    attention_width='in',
    stride_in='dw',
    pool='avg2',
)
_OLD_RW = replace(_RW, act_before=True, conv_bias=False, se_act='relu', stride_in='pool')
_RW_NANO = replace(_RW, depths=(3, 4, 6, 3), widths=(64, 128, 256, 512))
_RW_0 = replace(_OLD_RW, depths=(2, 3, 7, 2))
_RW_1 = replace(_OLD_RW, depths=(2, 6, 14, 2))
_RW_2 = replace(
    _RW_1,
    widths=(128, 256, 512, 1024),
    stem_widths=(64, 128),
    stride_in='dw',
    se_act='silu',
)
_RW_3 = replace(
    _RW_2, widths=(192, 384, 768, 1536), stem_widths=(96, 192), layer_scale_init=1e-6
)
_EARLY = dict(se_early=True, shortcut_bias=False)

_TIMM = {
    'pico_rw': replace(_RW_NANO, depths=(2, 3, 5, 2)),
    'nano_rw': replace(_RW_NANO, stride_in='pool'),
    '0_rw': replace(_RW_0, **_EARLY),
    '1_rw': replace(_RW_1, stride_in='dw', **_EARLY),
    '2_rw': _RW_2,
    '3_rw': _RW_3,
    'bn_0_rw': replace(_RW_0, stride_in='dw', norm='BN', **_EARLY),
    'rmlp_nano_rw': replace(_RW_NANO, bias='mlp', bias_hidden=384),
    'rmlp_0_rw': replace(_RW_0, stride_in='dw', bias='mlp'),
    'rmlp_1_rw': replace(_RW_1, pool='max3', bias='mlp', bias_hidden=384, **_EARLY),
    'rmlp_1_rw2': replace(_RW_1, stride_in='dw', bias='mlp'),
    'rmlp_2_rw': replace(_RW_2, bias='mlp', layer_scale_init=1e-6),
    'rmlp_3_rw': replace(_RW_3, bias='mlp'),
    'nano_cc': replace(
        _OLD_RW,
        layout=('C', 'C', 'CT', 'CT'),
        depths=(3, 4, (1, 5), (1, 2)),
        widths=(64, 128, 256, 512),
    ),
    'next_nano_rw': replace(_RW_NANO, conv='convnext', conv_act='gelu'),
}


def _pooling(kind: str) -> nn.Module:
    # Ceil mode changes nothing where the sides are even, and gives ceil(H / 2) where they are not.
    if kind == 'max3':
        return nn.MaxPool2d(3, stride=2, padding=1)
    if kind == 'max2':
        return nn.MaxPool2d(2, ceil_mode=True)
    return nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False)


def _norm(kind: str, channels: int) -> nn.Module:
    return LayerNorm2d(channels, EPS) if kind == 'LN' else nn.BatchNorm2d(channels, EPS)


class ConvStem(nn.Module):
    """3x3 convolution of stride 2, norm, activation, 3x3 convolution; neither has a bias.

    Args:
        widths: Output channels of the two convolutions.
        norm: The norm between them.
        act: The activation between them.
    """

    def __init__(self, widths: tuple[int, int], norm: nn.Module, act: nn.Module):
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, stride=2, padding=1, bias=False)
        self.norm = norm
        self.act = act
        self.conv2 = nn.Conv2d(*widths, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        return self.conv2(self.act(conv_norm(x, self.conv1, self.norm)))  # B, C, H/2, W/2

    @torch.no_grad()
    def fold(self) -> None:
        """Folds the norm, if it is a BatchNorm, into the first convolution for inference."""
        if isinstance(self.norm, _BatchNorm):
            fold_norms(self.conv1, self.norm)
            self.norm = nn.Identity()


class PatchStem(nn.Module):
    """The stem of a ViT: non-overlapping patches; the image is padded at its right and bottom.

    Args:
        width: Output channels.
        patch_size: Side of a patch in pixels.
    """

    def __init__(self, width: int, patch_size: int):
        super().__init__()
        self.conv = nn.Conv2d(3, width, patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        side = self.conv.stride[0]
        x = F.pad(x, (0, -x.shape[-1] % side, 0, -x.shape[-2] % side))
        return self.conv(x.contiguous(memory_format=torch.channels_last))  # B, C, H/p, W/p


class FeedForward(nn.Module):
    """Two linear layers on each position, GELU between them.

    Args:
        width: Channels of input and output.
        layer_scale_init: Initial scale of each output channel. Default: none.
    """

    def __init__(self, width: int, layer_scale_init: float | None = None):
        super().__init__()
        self.fc1 = nn.Linear(width, MLP_RATIO * width)
        self.fc2 = nn.Linear(MLP_RATIO * width, width)
        self.gamma = None
        if layer_scale_init is not None:
            self.gamma = nn.Parameter(torch.full((width,), layer_scale_init))

    def forward(self, x: Tensor) -> Tensor:
        """Maps B, C, H, W to the same shape."""
        y = F.gelu(self.fc1(x.permute(0, 2, 3, 1)))  # B, H, W, 4C
        return scaled_linear(y, self.fc2, self.gamma).permute(0, 3, 1, 2)

    @torch.no_grad()
    def fold(self) -> None:
        """Folds the layer scale into the second layer for inference."""
        if self.gamma is not None:
            fold_scale_after(self.fc2, self.gamma)
            self.gamma = None


class TransformerBlock(nn.Module):
    """Relative attention and feed-forward layer, each behind a norm and with a shortcut.

    At a change of resolution the normalised map and the shortcut are pooled (arXiv 2106.04803, eq.
    4); at a change of width the shortcut gets a 1x1 convolution.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        attention: The attention, ``in_channels`` -> ``out_channels``.
        pool: Pooling of stride 2. Default: none.
        shortcut_bias: Whether the shortcut's convolution has a bias.
        norm: ``'LN'`` or ``'BN'``.
        layer_scale_init: Initial scale of the feed-forward layer's output. Default: none.
        drop_path: Probability of dropping a branch of a sample.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        attention: GridAttention,
        pool: nn.Module | None = None,
        shortcut_bias: bool = True,
        norm: str = 'LN',
        layer_scale_init: float | None = None,
        drop_path: float = 0.0,
    ):
        super().__init__()
        self.pool = nn.Identity() if pool is None else pool
        self.shortcut = nn.Identity()
        if in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, bias=shortcut_bias)
        self.norm1 = _norm(norm, in_channels)
        self.attn = attention
        self.norm2 = _norm(norm, out_channels)
        self.mlp = FeedForward(out_channels, layer_scale_init)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Maps B, C, H, W to B, C', H, W, or half the sides if there is pooling."""
        y = self.attn(self.pool(self.norm1(x)))
        x = self.shortcut(self.pool(x)) + self.drop_path(y)
        return x + self.drop_path(self.mlp(self.norm2(x)))

    @torch.no_grad()
    def fold(self) -> None:
        """Folds the norms' affine part (BatchNorm: all of it) into the layers behind them."""
        if not isinstance(self.pool, nn.MaxPool2d):  # A negative scale turns maxima into minima.
            self.norm1 = _folded_into(self.norm1, self.attn.qkv)
        self.norm2 = _folded_into(self.norm2, self.mlp.fc1)
        if self.attn.gamma is not None:
            fold_scale_after(self.attn.proj, self.attn.gamma)
            self.attn.gamma = None


def _folded_into(norm: nn.Module, linear: nn.Linear) -> nn.Module:
    """Moves a norm's affine part into the layer behind it and returns what is left of the norm."""
    if isinstance(norm, _BatchNorm):
        fold_affine_before(linear, *fixed_affine(norm))
        return nn.Identity()
    if isinstance(norm, LayerNorm2d) and norm.weight is not None:
        fold_affine_before(linear, norm.weight, norm.bias)
        norm.weight = norm.bias = None
    return norm


class ConvNeXtBlock(nn.Module):
    """Depthwise 7x7, LayerNorm, feed-forward layer, layer scale (arXiv 2201.03545); a shortcut.

    Args:
        in_channels: Channels of the input; they divide those of the output.
        out_channels: Channels of the output.
        stride: Of the depthwise convolution, 1 or 2; the shortcut is pooled by 2x2 averages.
        layer_scale_init: Initial layer scale. Default: none.
        drop_path: Probability of dropping the branch of a sample.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        layer_scale_init: float | None = 1e-5,
        drop_path: float = 0.0,
    ):
        super().__init__()
        self.pool = _pooling('avg2') if stride > 1 else nn.Identity()
        self.shortcut = nn.Identity()
        if in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1)
        self.dwconv = nn.Conv2d(
            in_channels, out_channels, 7, stride=stride, padding=3, groups=in_channels
        )
        self.norm = LayerNorm2d(out_channels, EPS)
        self.mlp = FeedForward(out_channels, layer_scale_init)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Maps B, C, H, W to B, C', ceil(H / stride), ceil(W / stride)."""
        y = self.mlp(self.norm(self.dwconv(x)))
        return self.shortcut(self.pool(x)) + self.drop_path(y)

    @torch.no_grad()
    def fold(self) -> None:
        """Folds the norm's affine part into the layer behind it for inference."""
        self.norm = _folded_into(self.norm, self.mlp.fc1)


@MODELS.register_module()
class CoAtNet(DenseBackbone):
    """CoAtNet (arXiv 2106.04803).

    Maps of strides 4, 8, 16 and 32 (ViT-REL: 16 throughout); ``channels_last``. The residual
    stream that a stage returns was never normalised, so each output gets a norm of its own.

    Args:
        arch: ``'0'`` to ``'7'`` (the paper's, stride in the first 1x1 convolution, 2x2 maximum
            pooling), ``'timm_0'`` to ``'timm_5'`` (timm's reading of them: stride in the depthwise
            convolution, average pooling, heads of 32), ``'0_cccc'``, ``'0_ccct'``, ``'0_cttt'``
            and ``'vit_rel'`` (the layouts of the paper's comparison in the size of ``'0'``), timm's
            own ``'nano_rw'``, ``'0_rw'``, ``'rmlp_2_rw'`` ..., ``'nano'`` (for CPU work, ours), or
            a mapping with the fields of :class:`CoAtNetArch`.
        out_indices: Stages whose maps are returned, 0-based.
        drop_path_rate: Stochastic depth (arXiv 1603.09382) of the last block; 0 in the first,
            linear between.
        out_norms: Whether each output has a norm, as the transformer blocks have them. Only that
            of the last stage of timm's own models is in a checkpoint.
        windows: Side of the attention windows of each stage in positions, None for attention over
            the whole map, e.g. ``(None, None, 14, 7)``, the grid of pretraining. Default: no
            windows.
        pretrain_size: Side, or height and width, of the pretraining images in pixels: the bias
            tables have the size of their grid and are interpolated at run time for another one.
        frozen_stages: See :class:`DenseBackbone`.
        norm_eval: See :class:`DenseBackbone`.
        with_cp: See :class:`DenseBackbone`.
        init_cfg: See :class:`DenseBackbone`.
    """

    Arch = CoAtNetArch
    archs = {
        'nano': CoAtNetArch(
            depths=(1, 2, 3, 1), widths=(32, 64, 128, 192), stem_widths=(16, 32)
        ),
        **_PAPER,
        **{
            f'timm_{name}': replace(_PAPER[name], stride_in='dw', pool='avg2', head_dim=32)
            for name in '012345'
        },
        **{f'0_{layout.lower()}': CoAtNetArch(layout=layout) for layout in ('CCCC', 'CCCT', 'CTTT')},
        'vit_rel': CoAtNetArch(
            layout='TTTT', depths=(3, 3, 3, 3), widths=(384,) * 4, patch_size=16
        ),
        **_TIMM,
    }

    def __init__(
        self,
        arch: str | Mapping[str, Any] = '0',
        out_indices: int | Sequence[int] = (0, 1, 2, 3),
        drop_path_rate: float = 0.0,
        out_norms: bool = True,
        windows: Sequence[int | None] | None = None,
        pretrain_size: int | tuple[int, int] = 224,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(
            arch,
            frozen_stages=frozen_stages,
            norm_eval=norm_eval,
            with_cp=with_cp,
            init_cfg=init_cfg,
        )
        self._check_arch()
        stages = [self.arch.segments(s) for s in range(len(self.arch.layout))]
        self.windows = self._check_windows(windows)
        if isinstance(pretrain_size, int):
            pretrain_size = (pretrain_size, pretrain_size)
        self.pretrain_size = tuple(pretrain_size)
        self.out_indices = self.resolve_out_indices(out_indices, len(stages))
        self.out_channels = tuple(stages[i][-1][-1] for i in self.out_indices)
        self.out_strides = tuple(self.arch.strides[i] for i in self.out_indices)

        total = sum(depth for stage in stages for _, depth, _ in stage)
        rates = iter(self.drop_path_rates(drop_path_rate, 'linear', total))
        self.stem, channels = self._build_stem()
        self.stages = nn.ModuleList()
        for index in range(self.out_indices[-1] + 1):
            blocks = []
            for kind, depth, width in stages[index]:
                for _ in range(depth):
                    downsamples = self.arch.patch_size is None and not blocks
                    build = self._build_conv if kind == 'C' else self._build_transformer
                    blocks.append(build(index, channels, width, downsamples, next(rates)))
                    channels = width
            self.stages.append(Stage(blocks))
        self.out_norms = None
        if out_norms:
            self.out_norms = nn.ModuleDict(
                {
                    str(i): _norm(self.arch.norm, width)
                    for i, width in zip(self.out_indices, self.out_channels, strict=True)
                }
            )
        self.reset_parameters()
        self.finish_init()

    def _check_arch(self) -> None:
        arch = self.arch
        for field, choices in _CHOICES.items():
            if getattr(arch, field) not in choices:
                raise ValueError(
                    f"{field}='{getattr(arch, field)}' of CoAtNet must be one of "
                    f'{", ".join(choices)}'
                )
        if not len(arch.layout) == len(arch.depths) == len(arch.widths):
            raise ValueError(
                f'layout={arch.layout}, depths={arch.depths} and widths={arch.widths} of CoAtNet '
                f'must have one entry a stage'
            )
        for kinds, depth, width in zip(arch.layout, arch.depths, arch.widths, strict=True):
            counts = {len(x) for x in (depth, width) if not isinstance(x, int)}
            single = isinstance(depth, int)
            if kinds not in ('C', 'T', 'CT') or counts - {len(kinds)} or single == (kinds == 'CT'):
                raise ValueError(
                    f"a stage of CoAtNet is 'C' or 'T' with one depth and width, or 'CT' with two, "
                    f"not '{kinds}' with depth {depth} and width {width}"
                )
        side = arch.patch_size
        if side is not None and (side < 4 or side & (side - 1) or set(arch.layout) != {'T'}):
            raise ValueError(
                f'patch_size={side} of CoAtNet must be a power of two from 4 on, and all stages '
                f"'T', not {arch.layout}"
            )

    def _check_windows(self, windows: Sequence[int | None] | None) -> tuple[int | None, ...]:
        layout = self.arch.layout
        windows = (None,) * len(layout) if windows is None else tuple(windows)
        if len(windows) != len(layout) or any(
            side is not None and (side < 1 or 'T' not in kinds)
            for side, kinds in zip(windows, layout, strict=False)
        ):
            raise ValueError(
                f'windows={windows} of CoAtNet must have one entry a stage of {layout}: None, or '
                f"from 1 on where the stage has 'T'"
            )
        return windows

    def _build_stem(self) -> tuple[nn.Module, int]:
        arch = self.arch
        if arch.patch_size is not None:
            width = arch.segments(0)[0][-1]
            return PatchStem(width, arch.patch_size), width
        width = arch.stem_widths[0]
        norm = nn.BatchNorm2d(width) if arch.conv == 'mbconv' else LayerNorm2d(width, EPS)
        return ConvStem(arch.stem_widths, norm, ACTIVATIONS[arch.conv_act]()), arch.stem_widths[1]

    def _build_conv(
        self, stage: int, in_channels: int, out_channels: int, downsamples: bool, drop_path: float
    ) -> nn.Module:
        arch, stride = self.arch, 2 if downsamples else 1
        if arch.conv == 'convnext':
            return ConvNeXtBlock(
                in_channels, out_channels, stride, arch.conv_layer_scale_init, drop_path
            )
        return MBConv(
            in_channels,
            out_channels,
            stride,
            stride_in=arch.stride_in,
            pool=_pooling(arch.pool) if downsamples else None,
            expand_from=arch.expand_from,
            act=ACTIVATIONS[arch.conv_act],
            act_before=arch.act_before,
            se_act=ACTIVATIONS[arch.se_act],
            se_early=arch.se_early,
            bias=arch.conv_bias,
            drop_path=drop_path,
        )

    def _build_transformer(
        self, stage: int, in_channels: int, out_channels: int, downsamples: bool, drop_path: float
    ) -> nn.Module:
        arch = self.arch
        channels = out_channels if arch.attention_width == 'out' else in_channels
        if channels % arch.head_dim:
            raise ValueError(
                f'head_dim={arch.head_dim} of CoAtNet must divide the attention width {channels} '
                f'of stage {stage}'
            )
        heads = channels // arch.head_dim
        bias = None
        if arch.bias == 'table':
            stride = arch.strides[stage]
            bias = RelativeBiasTable(heads, tuple(-(-side // stride) for side in self.pretrain_size))
        elif arch.bias == 'mlp':
            bias = RelativeBiasMlp(heads, arch.bias_hidden)
        attention = GridAttention(
            in_channels,
            channels,
            out_channels,
            arch.head_dim,
            bias,
            self.windows[stage],
            arch.layer_scale_init,
        )
        return TransformerBlock(
            in_channels,
            out_channels,
            attention,
            _pooling(arch.pool) if downsamples else None,
            arch.shortcut_bias,
            arch.norm,
            arch.layer_scale_init,
            drop_path,
        )

    def reset_parameters(self) -> None:
        """Draws weights as timm does: MBConv from a normal of variance 2 / fan-out, transformer
        blocks Xavier-uniform; with ConvNeXt blocks everything from a normal of 0.02. Biases are 0,
        those of the transformer's MLPs almost."""
        for module in [self.stem, *(block for stage in self.stages for block in stage.blocks)]:
            xavier = isinstance(module, TransformerBlock) and self.arch.conv == 'mbconv'
            for name, layer in module.named_modules():
                if not isinstance(layer, (nn.Conv2d, nn.Linear)):
                    continue
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
                if self.arch.conv == 'convnext':
                    nn.init.normal_(layer.weight, std=0.02)
                elif xavier:
                    nn.init.xavier_uniform_(layer.weight)
                    if name.endswith(('fc1', 'fc2')):
                        nn.init.normal_(layer.bias, std=1e-6)
                else:
                    fan_out = layer.weight[0, 0].numel() * layer.out_channels // layer.groups
                    nn.init.normal_(layer.weight, std=(2 / fan_out) ** 0.5)

    def adapt_parameter(self, name: str, value: Tensor) -> Tensor | None:
        """Interpolates bias tables of another (square) pretraining grid."""
        path, _, parameter = name.rpartition('.')
        if parameter != 'relative_position_bias_table':
            return None
        return self.get_submodule(path).adapt(value)
