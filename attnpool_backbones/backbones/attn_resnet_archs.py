"""AttnResNet's variants, as data (arXiv 1512.03385, table 1; arXiv 1905.09646)."""

from dataclasses import dataclass, fields, replace

from attnpool_backbones.layers.attention_units import ATTENTIONS, DEFAULT_GROUPS, POOLING_UNITS

SGE_OPTIONS = ('scale_init', 'shift_init', 'normalize')
"""Fields that only SGE takes."""


@dataclass(frozen=True, kw_only=True)
class AttnResNetArch:
    """The numbers that make a ResNet with attention."""

    depths: tuple[int, ...]
    """Blocks of each stage."""
    widths: tuple[int, ...] = (64, 128, 256, 512)
    """Channels of the 3x3 convolutions of each stage; the stem has those of the first."""
    bottleneck: bool = True
    """Whether blocks are 1x1, 3x3, 1x1 with four times the width at the end, or 3x3, 3x3."""
    attention: str | None = None
    """A name of :data:`BLOCK_UNITS`, e.g. ``'sge'`` (on the branch of each block, after the last
    norm), ``'sk'`` (in place of a bottleneck's 3x3 convolution), ``'bam'`` (after a stage)."""
    attention_stages: tuple[int, ...] | None = None
    """Stages, 0-based, that have the unit. Default: all; with ``'bam'`` all but the last."""
    groups: int | None = None
    """Of SGE (default 64) or of SK's grouped convolution (default 32)."""
    reduction: int = 16
    """Channels over the width of the unit's bottleneck (all units but SGE)."""
    scale_init: float = 0.0
    """Initial scale of SGE's gates."""
    shift_init: float = 1.0
    """Initial shift of SGE's gates."""
    normalize: bool = True
    """Whether SGE normalises its similarities over the positions."""
    pool_heads: int = 0
    """Heads of attention pooling (arXiv 2112.13692) in place of SE's average and GC's map; 0: as
    published."""
    num_class_tokens: int = 1
    """Queries of the pooling layer (``pooling=True``): one, or one per class."""

    def __post_init__(self):
        if self.attention is not None and self.attention not in ATTENTIONS:
            raise ValueError(
                f"AttnResNet has no attention='{self.attention}'; choose one of "
                f'{", ".join(ATTENTIONS)} or None'
            )
        if self.attention == 'sk' and not self.bottleneck:
            raise ValueError("attention='sk' of AttnResNet needs bottleneck=True")
        changed = [
            f.name
            for f in fields(self)
            if f.name in SGE_OPTIONS and getattr(self, f.name) != f.default
        ]
        if changed and self.attention != 'sge':
            raise ValueError(
                f"{', '.join(changed)} of AttnResNet needs attention='sge', not {self.attention!r}"
            )
        if self.pool_heads and self.attention not in POOLING_UNITS:
            raise ValueError(
                f'pool_heads={self.pool_heads} of AttnResNet needs attention to be one of '
                f'{", ".join(POOLING_UNITS)}, not {self.attention!r}'
            )
        if len(self.depths) != len(self.widths):
            raise ValueError(
                f'AttnResNet needs as many depths as widths, not depths={self.depths}, '
                f'widths={self.widths}'
            )
        if not set(self.stages_with_attention()) <= set(range(len(self.depths))):
            raise ValueError(
                f'attention_stages={self.attention_stages} of AttnResNet must lie in '
                f'0..{len(self.depths) - 1}'
            )

    def stages_with_attention(self) -> tuple[int, ...]:
        """Returns ``attention_stages`` with the default filled in."""
        if self.attention is None:
            return ()
        if self.attention_stages is not None:
            return tuple(self.attention_stages)
        return tuple(range(len(self.depths) - (self.attention == 'bam')))

    def unit_options(self) -> dict[str, float]:
        """Returns the constructor arguments, besides the channels, of the unit."""
        options = {}
        if self.attention in DEFAULT_GROUPS:
            options['groups'] = self.groups or DEFAULT_GROUPS[self.attention]
        if self.attention == 'sge':
            options |= {name: getattr(self, name) for name in SGE_OPTIONS}
        else:
            options['reduction'] = self.reduction
        if self.attention in POOLING_UNITS:
            options['pool_heads'] = self.pool_heads
        return options


_GROUPS = {'resnet50': (8, 16, 32, 128, 256), 'resnet_nano': (4, 8, 32, 64)}
"""Size -> numbers of groups of SGE beside the default one, up to one channel a group."""
_SGE_ABLATIONS = {
    'scale0_shift0': dict(shift_init=0.0),
    'scale1_shift0': dict(scale_init=1.0, shift_init=0.0),
    'scale1_shift1': dict(scale_init=1.0),
    'unnormalized': dict(normalize=False),
}
"""The article's other ablations of SGE, beside scale 0 and shift 1 with normalisation."""


def _published_archs() -> dict[str, AttnResNetArch]:
    depths = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
    archs = {}
    for attention in (None, *ATTENTIONS):
        prefix = f'{attention}_' if attention else ''
        for depth, blocks in depths.items():
            bottleneck = depth >= 50
            if attention != 'sk' or bottleneck:
                archs[f'{prefix}resnet{depth}'] = AttnResNetArch(
                    depths=blocks, bottleneck=bottleneck, attention=attention
                )
        archs[f'{prefix}resnet_nano'] = AttnResNetArch(
            depths=(2, 2, 2, 2),
            widths=(16, 32, 64, 128),
            attention=attention,
            groups=16 if attention in DEFAULT_GROUPS else None,
            reduction=8,
        )
    for size, groups in _GROUPS.items():
        sge = archs[f'sge_{size}']
        archs |= {f'sge_{size}_groups{n}': replace(sge, groups=n) for n in groups}
        archs |= {f'sge_{size}_{name}': replace(sge, **o) for name, o in _SGE_ABLATIONS.items()}
    for unit in POOLING_UNITS:
        for size in ('resnet50', 'resnet_nano'):
            archs[f'{unit}_{size}_attnpool'] = replace(archs[f'{unit}_{size}'], pool_heads=4)
    archs['nano'] = archs['sge_resnet_nano']
    return archs


ARCHS = _published_archs()
