"""PatchConvNet: a columnar convolutional trunk with attention-based aggregation.

Augmenting Convolutional networks with attention-based aggregation, arXiv 2112.13692.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from attnpool_backbones.backbones.choices import drop_path_rates, taps_of_depth
from attnpool_backbones.backbones.pooled import PooledBackbone
from attnpool_backbones.layers.activations import GELU, Activated
from attnpool_backbones.layers.folding import fold_norm_before, fold_scale_after
from attnpool_backbones.layers.grid_attention import GridAttention
from attnpool_backbones.layers.norm import build_map_norm
from attnpool_backbones.layers.patch_stem import PatchStem
from attnpool_backbones.layers.position_embedding import (
    PositionEmbedding,
    resize_position_embedding,
)
from attnpool_backbones.layers.squeeze_excite import SqueezeExcite, excited
from attnpool_backbones.layers.transformer_block import TransformerBlock
from attnpool_backbones.ops.conv_norm import conv_norm, conv_residual
from attnpool_backbones.registry import MODELS

SE_RATIO = 4
"""Width of a block over that of its squeeze-and-excitation bottleneck."""


_CHOICES = {'patch_embed': ('conv', 'linear'), 'trunk': ('conv', 'attention')}


@dataclass(frozen=True, kw_only=True)
class PatchConvNetArch:
    """The numbers that make a PatchConvNet."""

    width: int
    """Channels of the whole trunk; a multiple of 8."""
    depth: int
    """Blocks."""
    layer_scale_init: float = 1e-6
    """Initial layer scale of the blocks and of the pooling layer."""
    num_class_tokens: int = 1
    """Queries of the pooling layer: one, or one per class."""
    stride: int = 16
    """Of the stem, a power of two."""
    patch_embed: str = 'conv'
    """The stem: ``'conv'``, one 3x3 convolution of stride 2 for each factor of two, or
    ``'linear'``, patches of the size of the stride (the article's ablation)."""
    trunk: str = 'conv'
    """Blocks: ``'conv'`` or, the article's ablation, ``'attention'``: transformer blocks with a
    position embedding before them."""
    head_dim: int = 64
    """Channels of a head of an attention trunk; a divisor of ``width``."""
    image_size: int = 224
    """Side of the pretraining's images in pixels: sizes an attention trunk's position embedding."""

    def __post_init__(self):
        for field, choices in _CHOICES.items():
            if getattr(self, field) not in choices:
                raise ValueError(
                    f"{field}='{getattr(self, field)}' of PatchConvNet must be one of "
                    f'{", ".join(choices)}'
                )
        stride = self.stride
        if stride < 4 or stride & (stride - 1) or self.width % (stride // 2):
            raise ValueError(
                f'PatchConvNet needs a stride that is a power of two from 4 on and a width '
                f'divisible by half of it, not stride={stride}, width={self.width}'
            )
        if self.trunk == 'attention' and self.width % self.head_dim:
            raise ValueError(
                f'head_dim={self.head_dim} of PatchConvNet must divide width={self.width}'
            )


def _ablations(
    name: str, arch: PatchConvNetArch, attention_depth: int
) -> dict[str, PatchConvNetArch]:
    """Returns a variant and the article's ablations of its stem and trunk."""
    attention = replace(arch, trunk='attention', depth=attention_depth)
    return {
        name: arch,
        f'{name}_linear': replace(arch, patch_embed='linear'),
        f'{name}_attention': attention,
        f'{name}_linear_attention': replace(attention, patch_embed='linear'),
    }


class ConvStem(Activated):
    """3x3 convolutions of stride 2 without bias, GELU between them, nothing after the last.

    Args:
        width: Output channels; each convolution doubles the channels of the one before.
        stride: Of the whole stem, a power of two.
    """

    def __init__(self, width: int, stride: int):
        steps = stride.bit_length() - 1
        widths = [3, *(width >> (steps - 1 - i) for i in range(steps))]
        layers: list[nn.Module] = []
        for w_in, w_out in zip(widths[:-1], widths[1:], strict=True):
            layers += [nn.Conv2d(w_in, w_out, 3, stride=2, padding=1, bias=False), GELU()]
        super().__init__(*layers[:-1])


class PatchConvBlock(nn.Module):
    """Residual block of the trunk: 1x1, depthwise 3x3, squeeze-and-excitation, 1x1; no widening.

    Args:
        width: Channels.
        layer_scale_init: Initial layer scale.
        drop_path: Probability of dropping the branch of a sample.
        norm_cfg: Of the norm before the branch.
    """

    def __init__(self, width: int, layer_scale_init: float, drop_path: float, norm_cfg: dict):
        super().__init__()
        self.norm = build_map_norm(norm_cfg, width)
        self.conv1 = nn.Conv2d(width, width, 1)
        self.dwconv = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.act = GELU()
        self.se = SqueezeExcite(width, width // SE_RATIO)
        self.conv2 = nn.Conv2d(width, width, 1)
        self.gamma = nn.Parameter(torch.full((width,), layer_scale_init))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y = conv_norm(self.norm(x), self.conv1, act=self.act)  # B, C, H, W throughout
        y = conv_norm(y, self.dwconv, act=self.act)
        y = excited(y, self.se, self.dwconv, self.act)
        return conv_residual(x, y, self.conv2, self.drop_path, self.gamma)

    def fold(self) -> None:
        """Folds the layer scale and the norm's affine part (BatchNorm: all of it) for inference."""
        if self.gamma is None:
            return
        self.gamma = fold_scale_after(self.conv2, self.gamma)
        self.norm = fold_norm_before(self.norm, self.conv1)


@MODELS.register_module()
class PatchConvNet(PooledBackbone):
    """PatchConvNet (arXiv 2112.13692).

    Every block works at the stem's stride of 16; ``ScalePyramid`` turns the taps (or the last map)
    into strides 4, 8, 16 and 32. The trunk works in
    ``channels_last`` memory.

    Args:
        arch: A name of ``PatchConvNet.archs``, e.g. ``'s60'`` (small, 60 blocks), ``'s60_multi'``
            (one class token per class), the article's ablations ``'s60_linear'`` (linear patches),
            ``'s60_attention'`` (12 transformer blocks, about as many parameters) and
            ``'s60_linear_attention'``, ``'nano'`` (for CPU work, ours) and the same of it, or a
            mapping with the fields of :class:`PatchConvNetArch`.
        out_indices: Blocks whose outputs are returned. Default: 1/3, 1/2, 2/3 and 1 of the depth.
        drop_path_rate: Stochastic depth, arXiv 1603.09382.
        drop_path_schedule: ``'constant'`` (the same rate in every block, as released) or
            ``'linear'`` (0 in the first block, ``drop_path_rate`` in the last).
        norm_cfg: ``dict(type='LN')`` as released, or a BatchNorm for large batches, which
            ``switch_to_deploy`` folds into the convolutions.
        pooling: Whether to build the attention-pooling layer and the norm after it, for
            :meth:`forward_pooled`. Off for dense training: the maps do not depend on them.
        frozen_stages: See :class:`DenseBackbone`; a stage is a block.
        norm_eval: See :class:`DenseBackbone`.
        with_cp: See :class:`DenseBackbone`.
        init_cfg: See :class:`DenseBackbone`.
    """

    Arch = PatchConvNetArch
    archs = {
        **_ablations(
            'nano',
            PatchConvNetArch(
                width=128, depth=8, layer_scale_init=1.0, stride=8, head_dim=32, image_size=192
            ),
            attention_depth=8,
        ),
        **_ablations(
            's60', PatchConvNetArch(width=384, depth=60, layer_scale_init=1e-4), attention_depth=12
        ),
        's120': PatchConvNetArch(width=384, depth=120),
        'b60': PatchConvNetArch(width=768, depth=60),
        'b120': PatchConvNetArch(width=768, depth=120),
        'l60': PatchConvNetArch(width=1024, depth=60),
        'l120': PatchConvNetArch(width=1024, depth=120),
        's60_multi': PatchConvNetArch(
            width=384, depth=60, layer_scale_init=1e-4, num_class_tokens=1000
        ),
    }
    trunk = 'blocks'
    memory_format = torch.channels_last

    def __init__(
        self,
        arch: str | Mapping[str, Any] = 's60',
        out_indices: int | Sequence[int] | None = None,
        drop_path_rate: float = 0.0,
        drop_path_schedule: str = 'constant',
        norm_cfg: Mapping[str, Any] | None = None,
        pooling: bool = False,
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
        width, depth, stride = self.arch.width, self.arch.depth, self.arch.stride
        taps = taps_of_depth(depth) if out_indices is None else out_indices
        self.choose_outputs(taps, (width,) * depth, (stride,) * depth)

        rates = drop_path_rates(drop_path_rate, drop_path_schedule, depth)
        norm_cfg = dict(norm_cfg or dict(type='LN'))
        self.stem = self._build_stem()
        self.blocks = nn.ModuleList(
            self._build_block(norm_cfg, rates[i]) for i in range(self.out_indices[-1] + 1)
        )
        self.build_pooling(
            pooling,
            width,
            self.arch.num_class_tokens,
            layer_scale_init=self.arch.layer_scale_init,
        )
        self.finish_init()

    def _build_stem(self) -> nn.Module:
        arch = self.arch
        convolutional = arch.patch_embed == 'conv'
        stem = (ConvStem if convolutional else PatchStem)(arch.width, arch.stride)
        if arch.trunk == 'conv':
            return stem
        side = -(-arch.image_size // arch.stride)
        return nn.Sequential(stem, PositionEmbedding(arch.width, (side, side)))

    def _build_block(self, norm_cfg: dict, drop_path: float) -> nn.Module:
        arch, width = self.arch, self.arch.width
        if arch.trunk == 'conv':
            return PatchConvBlock(width, arch.layer_scale_init, drop_path, norm_cfg)
        block = TransformerBlock(
            build_map_norm(norm_cfg, width),
            GridAttention(width, width, width, arch.head_dim),
            build_map_norm(norm_cfg, width),
            width,
            width,
            layer_scale_init=arch.layer_scale_init,
            drop_path=drop_path,
        )
        for module in block.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        return block

    def adapt_parameter(self, name: str, value: Tensor) -> Tensor | None:
        """Resizes the position embedding of an attention trunk; repeats an only class token."""
        if name == 'stem.1.pos_embed' and value.dim() == 4:
            return resize_position_embedding(value, self.get_parameter(name).shape[-2:])
        return super().adapt_parameter(name, value)
