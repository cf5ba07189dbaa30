"""CoAtNet: convolutional stages, then stages of relative attention.

Marrying Convolution and Attention for All Data Sizes, arXiv 2106.04803. There is no official
release; what the paper leaves open follows timm, whose public weights load.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attnpool_backbones.backbones.base import DenseBackbone, Stage
from attnpool_backbones.backbones.choices import drop_path_rates
from attnpool_backbones.backbones.coatnet_archs import ARCHS, CoAtNetArch
from attnpool_backbones.layers.activations import ACTIVATIONS
from attnpool_backbones.layers.convnext_block import ConvNeXtBlock
from attnpool_backbones.layers.folding import fold_norm_after
from attnpool_backbones.layers.grid_attention import GridAttention
from attnpool_backbones.layers.mbconv import MBConv
from attnpool_backbones.layers.norm import LayerNorm2d
from attnpool_backbones.layers.patch_stem import PatchStem
from attnpool_backbones.layers.relative_bias import RelativeBiasMlp, RelativeBiasTable
from attnpool_backbones.layers.stride2_pool import stride2_pool
from attnpool_backbones.layers.transformer_block import TransformerBlock
from attnpool_backbones.layers.windows import check_windows, window_of_block
from attnpool_backbones.ops.conv_norm import conv_norm
from attnpool_backbones.ops.layout import in_format
from attnpool_backbones.registry import MODELS

EPS = 1e-6
"""Of the norms of transformer and ConvNeXt blocks and of the outputs."""


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
        y = conv_norm(in_format(x, torch.channels_last), self.conv1, self.norm, act=self.act)
        return self.conv2(y)  # B, C, H/2, W/2

    @torch.no_grad()
    def fold(self) -> None:
        """Folds the norm, if it is a BatchNorm, into the first convolution for inference."""
        self.norm = fold_norm_after(self.conv1, self.norm)


@MODELS.register_module()
class CoAtNet(DenseBackbone):
    """CoAtNet (arXiv 2106.04803).

    Maps of strides 4, 8, 16 and 32 (ViT-REL: 16 throughout). The residual
    stream that a stage returns was never normalised, so each output gets a norm of its own.

    Args:
        arch: ``'0'`` to ``'7'`` (the paper's, stride in the first 1x1 convolution, 2x2 maximum
            pooling), ``'timm_0'`` to ``'timm_5'`` (timm's reading of them: stride in the depthwise
            convolution, average pooling, heads of 32), ``'0_cccc'``, ``'0_ccct'``, ``'0_cttt'``
            and ``'vit_rel'`` (the layouts of the paper's comparison in the size of ``'0'``),
            ``'0_after'`` (the bias as a kernel after the softmax), timm's own ``'nano_rw'``,
            ``'0_rw'``, ``'rmlp_2_rw'`` ..., ``'nano'`` (for CPU work, ours; the same layouts and
            form of it are ``'nano_cccc'`` and so on), or a mapping with the fields of
            :class:`CoAtNetArch`.
        out_indices: Stages whose maps are returned, 0-based.
        drop_path_rate: Stochastic depth (arXiv 1603.09382) of the last block; 0 in the first,
            linear between.
        out_norms: Whether each output has a norm, as the transformer blocks have them. Only that
            of the last stage of timm's own models is in a checkpoint.
        windows: Side of the attention windows of each stage in positions, None for attention over
            the whole map, e.g. ``(None, None, 14, 7)``, the grid of pretraining. Default: no
            windows.
        global_every: Of a windowed stage's blocks with attention, every so many the last one
            attends over the whole map (as arXiv 2203.16527): 3 makes a third of them global.
            Default: 0, none.
        pretrain_size: Side, or height and width, of the pretraining images in pixels: the bias
            tables have the size of their grid and are interpolated at run time for another one.
        frozen_stages: See :class:`DenseBackbone`.
        norm_eval: See :class:`DenseBackbone`.
        with_cp: See :class:`DenseBackbone`.
        init_cfg: See :class:`DenseBackbone`.
    """

    Arch = CoAtNetArch
    archs = ARCHS

    def __init__(
        self,
        arch: str | Mapping[str, Any] = '0',
        out_indices: int | Sequence[int] = (0, 1, 2, 3),
        drop_path_rate: float = 0.0,
        out_norms: bool = True,
        windows: Sequence[int | None] | None = None,
        global_every: int = 0,
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
        stages = [self.arch.segments(s) for s in range(len(self.arch.layout))]
        attends = ['T' in kinds for kinds in self.arch.layout]
        self.windows = check_windows(windows, attends, global_every, 'CoAtNet')
        if isinstance(pretrain_size, int):
            pretrain_size = (pretrain_size, pretrain_size)
        self.pretrain_size = tuple(pretrain_size)
        channels = [stage[-1][-1] for stage in stages]
        self.choose_outputs(out_indices, channels, self.arch.strides)

        total = sum(depth for stage in stages for _, depth, _ in stage)
        rates = iter(drop_path_rates(drop_path_rate, 'linear', total))
        self.stem, channels = self._build_stem()
        self.stages = nn.ModuleList()
        for index in range(self.out_indices[-1] + 1):
            blocks = []
            for kind, depth, width in stages[index]:
                for b in range(depth):
                    downsamples = self.arch.patch_size is None and not blocks
                    args = (index, channels, width, downsamples, next(rates))
                    if kind == 'C':
                        blocks.append(self._build_conv(*args))
                    else:
                        window = window_of_block(self.windows[index], b, global_every)
                        blocks.append(self._build_transformer(*args, window))
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
                in_channels, out_channels, stride, arch.conv_layer_scale_init, EPS, drop_path
            )
        return MBConv(
            in_channels,
            out_channels,
            stride,
            stride_in=arch.stride_in,
            pool=stride2_pool(arch.pool) if downsamples else None,
            expand_from=arch.expand_from,
            act=ACTIVATIONS[arch.conv_act],
            act_before=arch.act_before,
            se_act=ACTIVATIONS[arch.se_act],
            se_early=arch.se_early,
            bias=arch.conv_bias,
            drop_path=drop_path,
        )

    def _build_transformer(
        self,
        stage: int,
        in_channels: int,
        out_channels: int,
        downsamples: bool,
        drop_path: float,
        window: int | None,
    ) -> nn.Module:
        arch = self.arch
        channels = out_channels if arch.attention_width == 'out' else in_channels
        if channels % arch.head_dim:
            raise ValueError(
                f'head_dim={arch.head_dim} of CoAtNet must divide the attention width {channels} '
                f'of stage {stage}'
            )
        stride = arch.strides[stage]
        bias = None
        if arch.bias == 'table':
            grid = tuple(-(-side // stride) for side in self.pretrain_size)
            bias = RelativeBiasTable(
                channels // arch.head_dim, grid, keep_sum=arch.bias_place == 'after'
            )
        elif arch.bias == 'mlp':
            bias = RelativeBiasMlp(channels // arch.head_dim, arch.bias_hidden)
        return TransformerBlock(
            _norm(arch.norm, in_channels),
            GridAttention(
                in_channels,
                channels,
                out_channels,
                arch.head_dim,
                bias,
                window,
                arch.bias_place,
            ),
            _norm(arch.norm, out_channels),
            in_channels,
            out_channels,
            pool=stride2_pool(arch.pool) if downsamples else None,
            shortcut_bias=arch.shortcut_bias,
            layer_scale_init=arch.layer_scale_init,
            drop_path=drop_path,
        )

    def reset_parameters(self) -> None:
        """Draws weights as timm does.

        MBConv from a normal of variance 2 / fan-out, transformer blocks Xavier-uniform; with
        ConvNeXt blocks everything from a normal of 0.02. Biases are 0, those of the transformer's
        MLPs almost.
        """
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
