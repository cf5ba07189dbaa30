"""MetaFormer's variants, as data (arXiv 2111.11418, tables 1, 3 and 5; arXiv 2210.13452)."""

from dataclasses import dataclass, replace

from attnpool_backbones.layers.named_norms import NORMS


@dataclass(frozen=True, kw_only=True)
class MetaFormerArch:
    """The numbers that make a MetaFormer. The defaults are those of the first paper."""

    depths: tuple[int, ...]
    """Blocks of each stage."""
    widths: tuple[int, ...]
    """Channels of each stage."""
    mixers: tuple[str, ...] = ('pool',) * 4
    """Token mixer of each stage: ``'pool'``, ``'identity'``, ``'random'``, ``'dwconv'``,
    ``'sepconv'``, ``'attention'`` or ``'spatial_fc'``."""
    pool_size: int = 3
    """Window of ``'pool'``, odd."""
    pos_embed_stages: tuple[int, ...] = ()
    """Stages (0-based) before whose blocks a position embedding is added."""
    mlp_ratio: float | tuple[float, ...] = 4.0
    """Hidden width of a block's MLP over that of the block; of all stages, or of each."""
    act: str = 'gelu'
    """Activation of the MLP: ``'gelu'``, ``'relu'``, ``'silu'`` or ``'star_relu'``."""
    bias: bool = True
    """Whether the MLP and the output projection of attention have biases."""
    norm: str = 'global'
    """Norm of the blocks: ``'global'``, ``'layer'``, ``'batch'`` or ``'none'``."""
    norm_eps: float = 1e-5
    norm_bias: bool = True
    """Whether the norms of the blocks have a shift."""
    layer_scale_init: float | None = 1e-5
    """Initial layer scale (arXiv 2103.17239) of both branches; None: no layer scale."""
    res_scale_stages: tuple[int, ...] = ()
    """Stages (0-based) with a learned scale on the residual path (arXiv 2110.09456)."""
    patch_norm: bool = False
    """Whether there is a layer norm without shift after the stem's convolution and before
    the others that change the resolution; their initialisation is truncated normal then."""
    residual: bool = True
    """Whether blocks have residual connections."""
    mlp: bool = True
    """Whether blocks have an MLP."""
    out_norm: str | None = None
    """Norm of the outputs if the constructor is not told: see its ``out_norm``."""

    def __post_init__(self):
        stages = len(self.depths)
        if not stages == len(self.widths) == len(self.mixers):
            raise ValueError(
                f'depths={self.depths}, widths={self.widths} and mixers={self.mixers} of '
                f'MetaFormer must have one entry for each stage'
            )
        if not isinstance(self.mlp_ratio, (int, float)) and len(self.mlp_ratio) != stages:
            raise ValueError(
                f'mlp_ratio={self.mlp_ratio} of MetaFormer must be a number, or have one entry for '
                f'each of {stages} stages'
            )
        require_norm(self.norm)
        for field in ('pos_embed_stages', 'res_scale_stages'):
            chosen = getattr(self, field)
            if not set(chosen) <= set(range(stages)):
                raise ValueError(f'{field}={chosen} of MetaFormer must lie in 0..{stages - 1}')

    def mlp_ratios(self) -> tuple[float, ...]:
        """Returns ``mlp_ratio`` of each stage."""
        if isinstance(self.mlp_ratio, (int, float)):
            return (self.mlp_ratio,) * len(self.depths)
        return tuple(self.mlp_ratio)


def require_norm(name: str) -> None:
    """Raises ValueError if no norm has the name."""
    if name not in NORMS:
        raise ValueError(f"norm '{name}' of MetaFormer must be one of {', '.join(NORMS)}")


_DEPTHS_1 = {
    's12': (2, 2, 6, 2),
    's24': (4, 4, 12, 4),
    's36': (6, 6, 18, 6),
    'm36': (6, 6, 18, 6),
    'm48': (8, 8, 24, 8),
}
_WIDTHS_1 = {'s': (64, 128, 320, 512), 'm': (96, 192, 384, 768)}

_V1 = {
    size: MetaFormerArch(
        depths=depths,
        widths=_WIDTHS_1[size[0]],
        layer_scale_init=1e-5 if size in ('s12', 's24') else 1e-6,
    )
    for size, depths in _DEPTHS_1.items()
}
_NANO = MetaFormerArch(
    depths=(2, 2, 4, 2), widths=(32, 64, 128, 192), layer_scale_init=1.0, out_norm='global'
)


def _hybrids(arch: MetaFormerArch) -> dict[str, MetaFormerArch]:
    """Returns a pooling frame with other mixers, a letter a stage: pooling, attention, spatial FC.

    The first paper has those of two letters at most; with one letter in all stages they are ours.
    """
    layer = replace(arch, norm='layer')
    pool, attention, fc = 'pool', 'attention', 'spatial_fc'
    return {
        'id': replace(arch, mixers=('identity',) * 4),
        'pppa': replace(layer, mixers=(pool, pool, pool, attention), pos_embed_stages=(3,)),
        'ppaa': replace(layer, mixers=(pool, pool, attention, attention), pos_embed_stages=(2,)),
        'aaaa': replace(layer, mixers=(attention,) * 4, pos_embed_stages=(0,)),
        'pppf': replace(arch, mixers=(pool, pool, pool, fc)),
        'ppff': replace(arch, mixers=(pool, pool, fc, fc)),
        'ffff': replace(arch, mixers=(fc,) * 4),
    }


def _ablations(arch: MetaFormerArch) -> dict[str, MetaFormerArch]:
    """Returns the first paper's ablations of a pooling frame (table 5), besides hybrids."""
    arch = replace(arch, out_norm='global')
    return {
        'random': replace(arch, mixers=('random',) * 4),
        'dwconv': replace(arch, mixers=('dwconv',) * 4),
        'pool5': replace(arch, pool_size=5),
        'pool7': replace(arch, pool_size=7),
        'pool9': replace(arch, pool_size=9),
        'layernorm': replace(arch, norm='layer', out_norm='layer'),
        'batchnorm': replace(arch, norm='batch', out_norm='batch'),
        'nonorm': replace(arch, norm='none', out_norm=None),
        'relu': replace(arch, act='relu'),
        'silu': replace(arch, act='silu'),
        'noresidual': replace(arch, residual=False),
        'nomlp': replace(arch, mlp=False),
    }


_V2 = MetaFormerArch(
    depths=(3, 3, 9, 3),
    widths=(64, 128, 320, 512),
    act='star_relu',
    bias=False,
    norm_eps=1e-6,
    norm_bias=False,
    layer_scale_init=None,
    res_scale_stages=(2, 3),
    patch_norm=True,
)
_SIZES_V2 = {
    's18': ((3, 3, 9, 3), (64, 128, 320, 512)),
    's36': ((3, 12, 18, 3), (64, 128, 320, 512)),
    'm36': ((3, 12, 18, 3), (96, 192, 384, 576)),
    'b36': ((3, 12, 18, 3), (128, 256, 512, 768)),
}
_MIXERS_SAME = {
    'identityformer': ('identity',) * 4,
    'randformer': ('identity', 'identity', 'random', 'random'),
    'poolformerv2': ('pool',) * 4,
}
_MIXERS_CONV = {
    'convformer': ('sepconv',) * 4,
    'caformer': ('sepconv', 'sepconv', 'attention', 'attention'),
}
ARCHS = {
    'nano': _NANO,
    **{f'nano_{name}': arch for name, arch in {**_hybrids(_NANO), **_ablations(_NANO)}.items()},
    'caformer_nano': replace(
        _V2,
        depths=(2, 2, 2, 1),
        widths=(32, 64, 128, 192),
        mixers=_MIXERS_CONV['caformer'],
        norm='layer',
        out_norm='layer',
    ),
    **{f'poolformer_{size}': replace(arch, out_norm='global') for size, arch in _V1.items()},
    **{f'metaformer_{name}_s12': arch for name, arch in _hybrids(_V1['s12']).items()},
    **{f'poolformer_s12_{name}': arch for name, arch in _ablations(_V1['s12']).items()},
    **{
        f'{name}_{size}': replace(_V2, depths=depths, widths=_WIDTHS_1[size[0]], mixers=mixers)
        for name, mixers in _MIXERS_SAME.items()
        for size, depths in _DEPTHS_1.items()
    },
    **{
        f'{name}_{size}': replace(_V2, depths=depths, widths=widths, mixers=mixers, norm='layer')
        for name, mixers in _MIXERS_CONV.items()
        for size, (depths, widths) in _SIZES_V2.items()
    },
}
