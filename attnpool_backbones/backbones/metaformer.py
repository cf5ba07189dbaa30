"""MetaFormer: PoolFormer and the other token mixers in the same frame.

MetaFormer Is Actually What You Need for Vision, arXiv 2111.11418 (PoolFormer, hybrids, ablations);
MetaFormer Baselines for Vision, arXiv 2210.13452 (IdentityFormer, RandFormer, PoolFormerV2,
ConvFormer, CAFormer).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn
from torch.nn import functional as F

from attnpool_backbones.backbones.base import DenseBackbone, Stage
from attnpool_backbones.layers.channel_mlp import ChannelMlp
from attnpool_backbones.layers.folding import fold_norm_before, fold_scale_after
from attnpool_backbones.layers.global_norm import GlobalNorm
from attnpool_backbones.layers.norm import LayerNorm2d
from attnpool_backbones.layers.position_embedding import resize_position_embedding
from attnpool_backbones.layers.token_mixers import (
    CHANNELWISE_MIXERS,
    SpatialFC,
    build_token_mixer,
    last_layer,
    resize_spatial_matrix,
)
from attnpool_backbones.registry import MODELS

NORMS = {
    'global': GlobalNorm,
    'layer': LayerNorm2d,
    'batch': lambda channels, eps, bias: nn.BatchNorm2d(channels, eps=eps),
    'none': lambda channels, eps, bias: nn.Identity(),
}
"""Norms by name: over channels and positions of a sample (GroupNorm with one group), over the
channels of each position, over batch and positions, or none."""

SMALL_MAP = 400
"""Positions up to which a CPU convolves as fast, and trains faster, with contiguous maps; these
also round as the official code does."""


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
    """Stages (0-based) in front of whose blocks a position embedding is added."""
    mlp_ratio: float = 4.0
    """Width of a block's perceptron over that of the block."""
    act: str = 'gelu'
    """Activation of the perceptron: ``'gelu'``, ``'relu'``, ``'silu'`` or ``'star_relu'``."""
    bias: bool = True
    """Whether the perceptron and the output projection of attention have biases."""
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
    """Whether there is a layer norm without shift behind the stem's convolution and in front of
    the others that change the resolution; their initialisation is truncated normal then."""
    residual: bool = True
    """Whether blocks have residual connections."""
    mlp: bool = True
    """Whether blocks have a perceptron."""
    out_norm: str | None = None
    """Norm of the outputs if the constructor is not told: see its ``out_norm``."""


class PatchEmbedding(nn.Module):
    """Convolution that lowers the resolution, the position embedding behind it, maybe a norm.

    The output has ceil(H / stride) rows and ceil(W / stride) columns: where the convolution alone
    would give one less, zeros are added at the bottom or the right.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        kernel_size: Of the convolution.
        stride: Of the convolution.
        padding: Of the convolution, on all sides.
        norm: Where a layer norm stands: ``'before'`` or ``'behind'`` the convolution, or None.
        grid: Height and width of a position embedding; None: no position embedding.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        kernel_size: int,
        stride: int,
        padding: int,
        norm: str | None = None,
        grid: tuple[int, int] | None = None,
    ):
        super().__init__()
        self.norm_first = norm == 'before'
        self.proj = nn.Conv2d(in_channels, channels, kernel_size, stride, padding)
        if in_channels < 4:
            # With so few channels a weight in another layout than the image's is 5 times slower.
            self.proj.to(memory_format=torch.channels_last)
        self.norm = None
        if norm is not None:
            norm_channels = in_channels if self.norm_first else channels
            self.norm = LayerNorm2d(norm_channels, eps=1e-6, bias=False)
            nn.init.trunc_normal_(self.proj.weight, std=0.02)
            nn.init.zeros_(self.proj.bias)
        self.pos_embed = None
        if grid is not None:
            self.pos_embed = nn.Parameter(torch.zeros(1, channels, *grid))

    def forward(self, x: Tensor) -> Tensor:
        if self.norm is not None and self.norm_first:
            x = self.norm(x)
        missing = self._missing(x)
        x = self._convolve(F.pad(x, missing) if any(missing) else x)
        if self.norm is not None and not self.norm_first:
            x = self.norm(x)
        if self.pos_embed is not None:
            x = x + resize_position_embedding(self.pos_embed, x.shape[-2:])
        return x

    def _convolve(self, x: Tensor) -> Tensor:
        if x.device.type == 'cpu' and x.shape[-2] * x.shape[-1] <= SMALL_MAP:
            y = self.proj(x.contiguous())
            return y.contiguous(memory_format=torch.channels_last)
        return self.proj(x)

    def _missing(self, x: Tensor) -> tuple[int, int, int, int]:
        """Returns how many zeros the input lacks left, right, at the top and at the bottom."""
        (kernel, _), (stride, _), (padding, _) = (
            self.proj.kernel_size, self.proj.stride, self.proj.padding
        )  # fmt: skip
        bottom, right = (
            max(0, ((n - 1) // stride) * stride + kernel - 2 * padding - n) for n in x.shape[-2:]
        )
        return 0, right, 0, bottom


class MetaFormerBlock(nn.Module):
    """Token mixer and perceptron, each behind a norm and in a residual branch of its own.

    Args:
        arch: The numbers of the variant.
        stage: Stage (0-based) the block is part of.
        grid: Height and width of the stage's map in pretraining.
        drop_path: Probability of dropping a branch of a sample.
    """

    def __init__(self, arch: MetaFormerArch, stage: int, grid: tuple[int, int], drop_path: float):
        super().__init__()
        width = arch.widths[stage]
        self.residual = arch.residual
        self.norm1 = NORMS[arch.norm](width, eps=arch.norm_eps, bias=arch.norm_bias)
        self.mixer = build_token_mixer(
            arch.mixers[stage],
            width,
            grid=grid,
            pool_size=arch.pool_size,
            proj_bias=arch.bias,
        )
        self.drop_path = DropPath(drop_path)
        self.layer_scale1 = _scale(arch.layer_scale_init, width)
        res_scale_init = 1.0 if stage in arch.res_scale_stages else None
        self.res_scale1 = _scale(res_scale_init, width)
        self.mlp = None
        if arch.mlp:
            self.norm2 = NORMS[arch.norm](width, eps=arch.norm_eps, bias=arch.norm_bias)
            self.mlp = ChannelMlp(width, int(width * arch.mlp_ratio), arch.act, arch.bias)
            self.layer_scale2 = _scale(arch.layer_scale_init, width)
            self.res_scale2 = _scale(res_scale_init, width)
        for module in (*self.mixer.modules(), *(self.mlp.modules() if arch.mlp else ())):
            if isinstance(module, nn.Linear) or (arch.patch_norm and isinstance(module, nn.Conv2d)):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.norm1, GlobalNorm) and isinstance(self.mixer, CHANNELWISE_MIXERS):
            # The scale passes through the mixer; in the norm it costs nothing.
            y = self.mixer(self.norm1(x, self.layer_scale1))  # B, C, H, W throughout
            x = self._join(x, y, None, self.res_scale1)
        else:
            y = self.mixer(self.norm1(x))
            x = self._join(x, y, self.layer_scale1, self.res_scale1)
        if self.mlp is not None:
            y = self.mlp(self.norm2(x), self.layer_scale2)
            x = self._join(x, y, None, self.res_scale2)
        return x

    def _join(
        self, x: Tensor, y: Tensor, layer_scale: Tensor | None, res_scale: Tensor | None
    ) -> Tensor:
        """Returns res_scale * x + drop_path(layer_scale * y) in as few passes as possible."""
        gain = None if layer_scale is None else layer_scale.view(1, -1, 1, 1)
        if self.training and self.drop_path.drop_prob > 0:
            # Dropped as factors of the samples, B, 1 or C, 1, 1, not as a map.
            gain = y.new_ones(1, 1, 1, 1) if gain is None else gain
            gain = self.drop_path(gain.expand(len(y), -1, -1, -1))
        if not self.residual:
            return y if gain is None else y * gain
        if res_scale is not None:
            y = y if gain is None else y * gain
            return torch.addcmul(y, x, res_scale.view(-1, 1, 1))
        return x + y if gain is None else torch.addcmul(x, y, gain)

    @torch.no_grad()
    def fold(self) -> None:
        """Folds layer scales and the affine part of the perceptron's norm, for inference."""
        if self.mlp is not None:
            if self.layer_scale2 is not None:
                fold_scale_after(self.mlp.fc2, self.layer_scale2)
                self.layer_scale2 = None
            self.norm2 = fold_norm_before(self.norm2, self.mlp.fc1)
        if self.layer_scale1 is not None:
            scaled = last_layer(self.mixer) or self.norm1
            if getattr(scaled, 'weight', None) is not None:
                fold_scale_after(scaled, self.layer_scale1)
                self.layer_scale1 = None


def _scale(init: float | None, width: int) -> nn.Parameter | None:
    return None if init is None else nn.Parameter(torch.full((width,), init))


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
_S12 = _V1['s12']
_ABLATIONS_V1 = {
    'random': replace(_S12, mixers=('random',) * 4, out_norm='global'),
    'dwconv': replace(_S12, mixers=('dwconv',) * 4, out_norm='global'),
    'pool5': replace(_S12, pool_size=5, out_norm='global'),
    'pool7': replace(_S12, pool_size=7, out_norm='global'),
    'pool9': replace(_S12, pool_size=9, out_norm='global'),
    'layernorm': replace(_S12, norm='layer', out_norm='layer'),
    'batchnorm': replace(_S12, norm='batch', out_norm='batch'),
    'nonorm': replace(_S12, norm='none'),
    'relu': replace(_S12, act='relu', out_norm='global'),
    'silu': replace(_S12, act='silu', out_norm='global'),
    'noresidual': replace(_S12, residual=False, out_norm='global'),
    'nomlp': replace(_S12, mlp=False, out_norm='global'),
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


@MODELS.register_module()
class MetaFormer(DenseBackbone):
    """PoolFormer and its relatives (arXiv 2111.11418, arXiv 2210.13452).

    The trunk works in ``channels_last`` memory.

    Variants: ``poolformer_{s12,s24,s36,m36,m48}``; the first paper's hybrids
    ``metaformer_{id,pppa,ppaa,pppf,ppff}_s12`` (one letter a stage: pooling, attention, spatial
    FC) and its ablations ``poolformer_s12_{random,dwconv,pool5,pool7,pool9,layernorm,batchnorm,
    nonorm,relu,silu,noresidual,nomlp}``; the second paper's
    ``{identityformer,randformer,poolformerv2}_{s12,s24,s36,m36,m48}`` and
    ``{convformer,caformer}_{s18,s36,m36,b36}``; for CPU work, ours, ``nano`` (pooling) and
    ``caformer_nano``.

    With ``norm='global'`` (PoolFormer's) every position of a map depends on the whole input:
    padding, cropping and tiling change all features a little.

    Spatial FC and position embeddings keep the size of pretraining and are interpolated to other
    input sizes at run time (see :class:`SpatialFC`, :func:`resize_position_embedding`).

    Args:
        arch: Name of a variant or a mapping with the fields of :class:`MetaFormerArch`.
        out_indices: Stages whose maps are returned.
        out_norm: Norm of each output: ``'global'``, ``'layer'`` (eps 1e-5, respectively 1e-6),
            ``'batch'`` or ``'none'``. Default: as the official dense models, ``'global'`` for
            PoolFormer (its ablations: their own norm) and ``nano``; ``'none'`` for the hybrids
            and the second paper, which have no official dense models, so train those with
            ``'layer'``, as ``caformer_nano`` has by default. No official classifier has these
            norms: with its checkpoint they start as identity; mmpretrain's have the last one.
        pretrain_img_size: Height and width, or one side, in pixels, of the images for which
            spatial FC, random mixing and position embeddings are built: that of the checkpoint.
        drop_path_rate: Stochastic depth (arXiv 1603.09382) of the last block; 0 in the first,
            linear between.
        frozen_stages: See :class:`DenseBackbone`.
        norm_eval: See :class:`DenseBackbone`.
        with_cp: See :class:`DenseBackbone`.
        init_cfg: See :class:`DenseBackbone`.

    Raises:
        ValueError: An unknown name, or fields of ``arch`` that do not fit each other.
    """

    Arch = MetaFormerArch
    archs = {
        'nano': MetaFormerArch(
            depths=(2, 2, 4, 2),
            widths=(32, 64, 128, 192),
            layer_scale_init=1.0,
            out_norm='global',
        ),
        'caformer_nano': replace(
            _V2,
            depths=(2, 2, 2, 1),
            widths=(32, 64, 128, 192),
            mixers=_MIXERS_CONV['caformer'],
            norm='layer',
            out_norm='layer',
        ),
        **{f'poolformer_{size}': replace(arch, out_norm='global') for size, arch in _V1.items()},
        'metaformer_id_s12': replace(_S12, mixers=('identity',) * 4),
        'metaformer_pppa_s12': replace(
            _S12,
            mixers=('pool', 'pool', 'pool', 'attention'),
            norm='layer',
            pos_embed_stages=(3,),
        ),
        'metaformer_ppaa_s12': replace(
            _S12,
            mixers=('pool', 'pool', 'attention', 'attention'),
            norm='layer',
            pos_embed_stages=(2,),
        ),
        'metaformer_pppf_s12': replace(_S12, mixers=('pool', 'pool', 'pool', 'spatial_fc')),
        'metaformer_ppff_s12': replace(_S12, mixers=('pool', 'pool', 'spatial_fc', 'spatial_fc')),
        **{f'poolformer_s12_{name}': arch for name, arch in _ABLATIONS_V1.items()},
        **{
            f'{name}_{size}': replace(_V2, depths=depths, widths=_WIDTHS_1[size[0]], mixers=mixers)
            for name, mixers in _MIXERS_SAME.items()
            for size, depths in _DEPTHS_1.items()
        },
        **{
            f'{name}_{size}': replace(
                _V2, depths=depths, widths=widths, mixers=mixers, norm='layer'
            )
            for name, mixers in _MIXERS_CONV.items()
            for size, (depths, widths) in _SIZES_V2.items()
        },
    }

    def __init__(
        self,
        arch: str | Mapping[str, Any] = 'poolformer_s12',
        out_indices: int | Sequence[int] = (0, 1, 2, 3),
        out_norm: str | None = None,
        pretrain_img_size: int | tuple[int, int] = 224,
        drop_path_rate: float = 0.0,
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
        arch, out_norm = self.arch, out_norm or self.arch.out_norm or 'none'
        depth = len(arch.depths)
        _check_arch(arch, out_norm)
        self.out_indices = self.resolve_out_indices(out_indices, depth)
        self.out_channels = tuple(arch.widths[i] for i in self.out_indices)
        self.out_strides = tuple(4 * 2**i for i in self.out_indices)

        side = pretrain_img_size
        height, width = (side, side) if isinstance(side, int) else side
        grids = [(-(-height // (4 * 2**i)), -(-width // (4 * 2**i))) for i in range(depth)]
        rates = iter(self.drop_path_rates(drop_path_rate, 'linear', sum(arch.depths)))
        self.stem = PatchEmbedding(
            3,
            arch.widths[0],
            kernel_size=7,
            stride=4,
            padding=2,
            norm='behind' if arch.patch_norm else None,
            grid=grids[0] if 0 in arch.pos_embed_stages else None,
        )
        self.stages = nn.ModuleList()
        for i in range(self.out_indices[-1] + 1):
            downsample = None
            if i > 0:
                downsample = PatchEmbedding(
                    arch.widths[i - 1],
                    arch.widths[i],
                    kernel_size=3,
                    stride=2,
                    padding=1,
                    norm='before' if arch.patch_norm else None,
                    grid=grids[i] if i in arch.pos_embed_stages else None,
                )
            blocks = [
                MetaFormerBlock(arch, i, grids[i], next(rates)) for _ in range(arch.depths[i])
            ]
            self.stages.append(Stage(blocks, downsample))
        self.out_norms = None
        if out_norm != 'none':
            eps = 1e-6 if out_norm == 'layer' and arch.patch_norm else 1e-5
            self.out_norms = nn.ModuleDict(
                {str(i): NORMS[out_norm](arch.widths[i], eps=eps, bias=True)
                 for i in self.out_indices}
            )  # fmt: skip
        self.finish_init()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Computes the maps; see :meth:`DenseBackbone.forward`."""
        self.check_input(x)
        return super().forward(x.contiguous(memory_format=torch.channels_last))

    def adapt_parameter(self, name: str, value: Tensor) -> Tensor | None:
        """Resizes position embeddings and the matrices of spatial FC and random mixing.

        Matrices do not tell their grid, so only those of square grids can be resized.
        """
        if name.endswith('.pos_embed') and value.dim() == 4:
            return resize_position_embedding(value, self.get_parameter(name).shape[-2:])
        module = self.get_submodule(name.rpartition('.')[0])
        if isinstance(module, SpatialFC) and value.dim() == 2:
            side = round(len(value) ** 0.5)
            if value.shape == (side**2, side**2):
                return resize_spatial_matrix(value, (side, side), module.grid)
        return None


def _check_arch(arch: MetaFormerArch, out_norm: str) -> None:
    """Raises ValueError where numbers of stages differ or a norm is unknown."""
    if not len(arch.depths) == len(arch.widths) == len(arch.mixers):
        raise ValueError(
            f'depths={arch.depths}, widths={arch.widths} and mixers={arch.mixers} of MetaFormer '
            f'must have one entry for each stage'
        )
    for name in (arch.norm, out_norm):
        if name not in NORMS:
            raise ValueError(f"norm '{name}' of MetaFormer must be one of {', '.join(NORMS)}")
    for field in ('pos_embed_stages', 'res_scale_stages'):
        stages = getattr(arch, field)
        if not set(stages) <= set(range(len(arch.depths))):
            raise ValueError(
                f'{field}={stages} of MetaFormer must lie in 0..{len(arch.depths) - 1}'
            )
