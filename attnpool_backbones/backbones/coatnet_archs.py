"""CoAtNet's variants, as data (arXiv 2106.04803, tables 3, 11 and 12; timm's models)."""

from dataclasses import dataclass, replace

from attnpool_backbones.layers.activations import ACTIVATIONS
from attnpool_backbones.layers.stride2_pool import STRIDE2_POOLS

_CHOICES = {
    'bias': ('table', 'mlp', 'none'),
    'bias_place': ('before', 'after'),
    'stride_in': ('1x1', 'dw', 'pool'),
    'pool': STRIDE2_POOLS,
    'conv': ('mbconv', 'convnext'),
    'expand_from': ('out', 'in'),
    'conv_act': tuple(ACTIVATIONS),
    'se_act': tuple(ACTIVATIONS),
    'attention_width': ('out', 'in'),
    'norm': ('LN', 'BN'),
}


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
    bias_place: str = 'before'
    """Where the bias is added: ``'before'`` the softmax (the paper's choice) or ``'after'`` it (its
    other form, eq. 3), for which it has to be a table."""
    bias_hidden: int = 512
    """Width of the bias's MLP."""
    stride_in: str = '1x1'
    """What has the stride in a convolution block: ``'1x1'`` (paper, eq. 5), the depthwise
    convolution ``'dw'``, or a pooling before both, ``'pool'``."""
    pool: str = 'max2'
    """Pooling of shortcuts and before attention: ``'max2'``, ``'max3'``, ``'avg2'`` (the
    number is the kernel's size)."""
    conv: str = 'mbconv'
    """Convolution block: ``'mbconv'`` or ``'convnext'``."""
    expand_from: str = 'out'
    """What MBConv widens to four times: its output channels ``'out'`` or its input channels
    ``'in'``."""
    conv_act: str = 'gelu'
    """Activation of stem and MBConv: ``'gelu'`` or ``'silu'``."""
    act_before: bool = False
    """Whether the activation follows MBConv's first norm too."""
    se_act: str = 'silu'
    """Activation of the squeeze-and-excitation: ``'silu'`` or ``'relu'``."""
    se_early: bool = False
    """Whether squeeze-and-excitation comes before the depthwise convolution's norm."""
    conv_bias: bool = True
    """Whether MBConv's shortcut and last convolution have a bias."""
    attention_width: str = 'out'
    """Width of the attention where the width changes: the block's output channels ``'out'`` or its
    input channels ``'in'``."""
    shortcut_bias: bool = True
    """Whether the transformer block's shortcut convolution has a bias."""
    norm: str = 'LN'
    """Norm of the transformer blocks and of the outputs: ``'LN'`` or ``'BN'``."""
    layer_scale_init: float | None = None
    """Initial layer scale of the transformer blocks (arXiv 2103.17239); None: no layer scale."""
    conv_layer_scale_init: float | None = 1e-5
    """Likewise of the ConvNeXt blocks."""

    def __post_init__(self):
        for field, choices in _CHOICES.items():
            if getattr(self, field) not in choices:
                raise ValueError(
                    f"{field}='{getattr(self, field)}' of CoAtNet must be one of "
                    f'{", ".join(choices)}'
                )
        if self.bias_place == 'after' and self.bias != 'table':
            raise ValueError(
                f"bias_place='after' of CoAtNet needs bias='table', not bias='{self.bias}'"
            )
        if not len(self.layout) == len(self.depths) == len(self.widths):
            raise ValueError(
                f'layout={self.layout}, depths={self.depths} and widths={self.widths} of CoAtNet '
                f'must have one entry a stage'
            )
        for kinds, depth, width in zip(self.layout, self.depths, self.widths, strict=True):
            counts = {len(x) for x in (depth, width) if not isinstance(x, int)}
            single = isinstance(depth, int)
            if kinds not in ('C', 'T', 'CT') or counts - {len(kinds)} or single == (kinds == 'CT'):
                raise ValueError(
                    f"a stage of CoAtNet is 'C' or 'T' with one depth and width, or 'CT' with two "
                    f"depths and one or two widths, not '{kinds}' with depth {depth} and width "
                    f'{width}'
                )
        side = self.patch_size
        if side is not None and (side < 4 or side & (side - 1) or set(self.layout) != {'T'}):
            raise ValueError(
                f'patch_size={side} of CoAtNet must be a power of two from 4 on, and all stages '
                f"'T', not {self.layout}"
            )

    @property
    def strides(self) -> tuple[int, ...]:
        """Stride of the map after each stage."""
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


_PAPER = {
    '0': CoAtNetArch(),
    '1': CoAtNetArch(depths=(2, 6, 14, 2)),
    '2': CoAtNetArch(depths=(2, 6, 14, 2), widths=(128, 256, 512, 1024), stem_widths=(128, 128)),
    '3': CoAtNetArch(depths=(2, 6, 14, 2), widths=(192, 384, 768, 1536), stem_widths=(192, 192)),
    '4': CoAtNetArch(depths=(2, 12, 28, 2), widths=(192, 384, 768, 1536), stem_widths=(192, 192)),
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
_RW_3 = replace(_RW_2, widths=(192, 384, 768, 1536), stem_widths=(96, 192), layer_scale_init=1e-6)
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

_NANO = CoAtNetArch(depths=(1, 2, 3, 1), widths=(32, 64, 128, 192), stem_widths=(16, 32))


def _layouts(name: str, arch: CoAtNetArch) -> dict[str, CoAtNetArch]:
    """Returns a variant, the paper's other layouts with a stem, and its other form of the sum."""
    layouts = {f'{name}_{layout.lower()}': layout for layout in ('CCCC', 'CCCT', 'CTTT')}
    return {
        name: arch,
        **{key: replace(arch, layout=layout) for key, layout in layouts.items()},
        f'{name}_after': replace(arch, bias_place='after'),
    }


ARCHS = {
    # For CPU work; ours, with the layouts and the form that the paper compares.
    **_layouts('nano', _NANO),
    'nano_vit_rel': CoAtNetArch(
        layout='TTTT', depths=(2, 2, 2, 2), widths=(128,) * 4, patch_size=8, head_dim=32
    ),
    **_PAPER,
    **{
        f'timm_{name}': replace(_PAPER[name], stride_in='dw', pool='avg2', head_dim=32)
        for name in '012345'
    },
    **_layouts('0', _PAPER['0']),
    'vit_rel': CoAtNetArch(
        layout='TTTT', depths=(3, 3, 3, 3), widths=(384, 384, 384, 384), patch_size=16
    ),
    **_TIMM,
}
"""The table of named variants."""
