"""ResNets with an attention unit in every block, after every stage or as pooling.

Deep Residual Learning for Image Recognition, arXiv 1512.03385; Spatial Group-wise Enhance:
Improving Semantic Feature Learning in Convolutional Networks, arXiv 1905.09646; Augmenting
Convolutional networks with attention-based aggregation, arXiv 2112.13692.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from mmcv.cnn.bricks import DropPath
from mmcv.cnn.utils import fuse_conv_bn
from torch import Tensor, nn

from attnpool_backbones.backbones.base import DenseBackbone
from attnpool_backbones.layers.attention_pooling import AttentionPooling, PooledTokens
from attnpool_backbones.layers.bam import BAM
from attnpool_backbones.layers.cbam import CBAM
from attnpool_backbones.layers.global_context import GC
from attnpool_backbones.layers.norm import build_map_norm
from attnpool_backbones.layers.selective_kernel import SelectiveKernel
from attnpool_backbones.layers.sge import SGE
from attnpool_backbones.layers.squeeze_excite import SE
from attnpool_backbones.registry import MODELS

BLOCK_UNITS: Mapping[str, type[nn.Module]] = {'sge': SGE, 'se': SE, 'cbam': CBAM, 'gc': GC}
"""Units on the branch of a block, behind its last norm; the name is the attribute's too."""
ATTENTIONS = (*BLOCK_UNITS, 'sk', 'bam')
"""All units: those of a block, in place of its 3x3 convolution, and after a stage."""
DEFAULT_GROUPS = {'sge': 64, 'sk': 32}
"""Groups of the units that have any, as published."""


@dataclass(frozen=True, kw_only=True)
class AttnResNetArch:
    """The numbers that make a ResNet with attention."""

    depths: tuple[int, ...]
    """Blocks of each stage."""
    widths: tuple[int, ...] = (64, 128, 256, 512)
    """Channels of the 3x3 convolutions of each stage; the stem has those of the first."""
    bottleneck: bool = True
    """Whether blocks are 1x1, 3x3, 1x1 with four times the width behind, or 3x3, 3x3."""
    attention: str | None = None
    """``'sge'``, ``'se'``, ``'cbam'``, ``'gc'`` (on the branch of each block, behind the last
    norm), ``'sk'`` (in place of a bottleneck's 3x3 convolution), ``'bam'`` (after a stage)."""
    attention_stages: tuple[int, ...] | None = None
    """Stages, 0-based, that have the unit. Default: all; with ``'bam'`` all but the last."""
    groups: int | None = None
    """Of SGE (default 64) or of SK's grouped convolution (default 32)."""
    reduction: int = 16
    """Channels over the width of the unit's bottleneck (all units but SGE)."""
    num_class_tokens: int = 1
    """Queries of the pooling layer (``pooling=True``): one, or one per class."""

    def stages_with_attention(self) -> tuple[int, ...]:
        """Returns ``attention_stages`` with the default filled in."""
        if self.attention is None:
            return ()
        if self.attention_stages is not None:
            return tuple(self.attention_stages)
        return tuple(range(len(self.depths) - (self.attention == 'bam')))

    def unit_options(self) -> dict[str, int]:
        """Returns the constructor arguments, besides the channels, of the unit."""
        groups = self.groups or DEFAULT_GROUPS.get(self.attention)
        return dict(groups=groups) if self.attention == 'sge' else dict(reduction=self.reduction)


def _conv(w_in: int, w_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(w_in, w_out, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode='fan_out', nonlinearity='relu')
    return conv


class ResidualBlock(nn.Module):
    """ReLU of the sum of a shortcut and a branch, the branch ending in an attention unit.

    Each norm stands behind its convolution in the list of modules, as the folding of norms expects.

    Args:
        w_in: Input channels.
        width: Channels of the 3x3 convolutions.
        stride: Of the first 3x3 convolution and of the shortcut.
        arch: The numbers of the whole network.
        attention: The unit of this block, one of ``arch.attention`` and None.
        drop_path: Probability of dropping the branch of a sample.
        norm_cfg: Of all norms.
    """

    expansion: ClassVar[int]

    def __init__(
        self,
        w_in: int,
        width: int,
        stride: int,
        arch: AttnResNetArch,
        attention: str | None,
        drop_path: float,
        norm_cfg: dict,
    ):
        super().__init__()
        w_out = width * self.expansion
        self.relu = nn.ReLU(inplace=True)
        self.build_branch(w_in, width, stride, arch, attention, norm_cfg)
        self.downsample = None
        if stride > 1 or w_in != w_out:
            self.downsample = nn.Sequential(
                _conv(w_in, w_out, 1, stride), build_map_norm(norm_cfg, w_out)
            )
        self.attention = attention if attention in BLOCK_UNITS else None
        if self.attention:
            self.add_module(attention, BLOCK_UNITS[attention](w_out, **arch.unit_options()))
        self.drop_path = DropPath(drop_path)

    def build_branch(
        self,
        w_in: int,
        width: int,
        stride: int,
        arch: AttnResNetArch,
        attention: str | None,
        norm_cfg: dict,
    ) -> None:
        """Adds the branch's layers; takes the constructor's arguments."""
        raise NotImplementedError

    def branch(self, x: Tensor) -> tuple[Tensor, nn.Module]:
        """Computes the branch up to its last norm; returns that norm and its input."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)  # B, C, H/s, W/s
        y, norm = self.branch(x)  # B, C, H/s, W/s
        if self.attention == 'sge' and not (self.training and self.drop_path.drop_prob):
            return self.sge(y, shortcut, norm=norm)
        y = norm(y)
        if self.attention:
            y = getattr(self, self.attention)(y)
        y = self.drop_path(y)
        y += shortcut
        return self.relu(y)


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions (arXiv 1512.03385, fig. 5 left)."""

    expansion = 1

    def build_branch(self, w_in, width, stride, arch, attention, norm_cfg) -> None:
        if attention == 'sk':
            raise ValueError("attention='sk' of AttnResNet needs bottleneck=True")
        self.conv1 = _conv(w_in, width, 3, stride)
        self.bn1 = build_map_norm(norm_cfg, width)
        self.conv2 = _conv(width, width, 3)
        self.bn2 = build_map_norm(norm_cfg, width)

    def branch(self, x: Tensor) -> tuple[Tensor, nn.Module]:
        y = self.relu(self.bn1(self.conv1(x)))
        return self.conv2(y), self.bn2


class Bottleneck(ResidualBlock):
    """1x1, 3x3 and 1x1 convolutions (arXiv 1512.03385, fig. 5 right), the stride on the 3x3."""

    expansion = 4

    def build_branch(self, w_in, width, stride, arch, attention, norm_cfg) -> None:
        self.conv1 = _conv(w_in, width, 1)
        self.bn1 = build_map_norm(norm_cfg, width)
        self.sk = None
        if attention == 'sk':
            groups = arch.groups or DEFAULT_GROUPS['sk']
            self.sk = SelectiveKernel(width, stride, groups, arch.reduction, norm_cfg)
        else:
            self.conv2 = _conv(width, width, 3, stride)
            self.bn2 = build_map_norm(norm_cfg, width)
        self.conv3 = _conv(width, width * self.expansion, 1)
        self.bn3 = build_map_norm(norm_cfg, width * self.expansion)

    def branch(self, x: Tensor) -> tuple[Tensor, nn.Module]:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y))) if self.sk is None else self.sk(y)
        return self.conv3(y), self.bn3


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
    archs['nano'] = archs['sge_resnet_nano']
    return archs


@MODELS.register_module()
class AttnResNet(DenseBackbone):
    """ResNet with SGE, SE, CBAM, GC, SK, BAM, attention pooling, or nothing of them.

    The convolutional skeleton and the names of its parameters are torchvision's and mmdet's (style
    ``pytorch``: a bottleneck's stride lies on its 3x3 convolution). Strides are 4, 8, 16, 32. With
    BAM an output is the map behind the unit.

    Args:
        arch: ``'resnet18'``, ``'resnet34'``, ``'resnet50'``, ``'resnet101'`` and ``'resnet_nano'``
            (for CPU work, ours), plain or behind ``'sge_'``, ``'se_'``, ``'cbam_'``, ``'gc_'``,
            ``'sk_'`` (bottlenecks only), ``'bam_'``, e.g. ``'sge_resnet50'``; ``'nano'`` is
            ``'sge_resnet_nano'``; or a mapping with the fields of :class:`AttnResNetArch`.
        out_indices: Stages whose maps are returned, 0-based.
        drop_path_rate: Stochastic depth of the last block, arXiv 1603.09382; 0 in the first and
            linear between them.
        norm_cfg: Of all norms but that of CBAM, which is always BatchNorm. Default: BatchNorm.
        pooling: Whether to build the attention-pooling layer of arXiv 2112.13692 and the norm
            behind it, for :meth:`forward_pooled`. The maps do not depend on them, so keep it off in
            dense training.
        frozen_stages: See :class:`DenseBackbone`. A stage contains the units in its blocks; a BAM
            belongs to the stage that follows it, as in the official code.
        norm_eval: See :class:`DenseBackbone`.
        with_cp: See :class:`DenseBackbone`.
        init_cfg: See :class:`DenseBackbone`.

    Raises:
        ValueError: An unknown attention, stages that the variant does not have, or channels that
            the groups do not divide; and see :class:`DenseBackbone`.
    """

    Arch = AttnResNetArch
    archs = _published_archs()

    def __init__(
        self,
        arch: str | Mapping[str, Any] = 'sge_resnet50',
        out_indices: int | Sequence[int] = (0, 1, 2, 3),
        drop_path_rate: float = 0.0,
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
        arch = self.arch
        self._check_arch()
        norm_cfg = dict(norm_cfg or dict(type='BN'))
        block_type = Bottleneck if arch.bottleneck else BasicBlock
        widths = tuple(width * block_type.expansion for width in arch.widths)
        self.out_indices = self.resolve_out_indices(out_indices, len(arch.depths))
        self.out_channels = tuple(widths[i] for i in self.out_indices)
        self.out_strides = tuple(4 << i for i in self.out_indices)

        self.conv1 = _conv(3, arch.widths[0], 7, stride=2)
        self.bn1 = build_map_norm(norm_cfg, arch.widths[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.num_stages = self.out_indices[-1] + 1
        rates = iter(self.drop_path_rates(drop_path_rate, 'linear', sum(arch.depths)))
        for s in range(self.num_stages):
            attention = arch.attention if s in arch.stages_with_attention() else None
            w_before = widths[s - 1] if s else arch.widths[0]
            blocks = [
                block_type(
                    widths[s] if b else w_before,
                    arch.widths[s],
                    2 if s and not b else 1,
                    arch,
                    attention,
                    next(rates),
                    norm_cfg,
                )
                for b in range(arch.depths[s])
            ]
            self.add_module(f'layer{s + 1}', nn.Sequential(*blocks))
            if attention == 'bam':
                self.add_module(
                    f'bam{s + 1}', BAM(widths[s], **arch.unit_options(), norm_cfg=norm_cfg)
                )
        self.pool = self.pool_norm = None
        if pooling:
            self.pool = AttentionPooling(widths[-1], num_tokens=arch.num_class_tokens)
            self.pool_norm = nn.LayerNorm(widths[-1], eps=1e-6)
        self.finish_init()

    def _check_arch(self) -> None:
        arch = self.arch
        if arch.attention is not None and arch.attention not in ATTENTIONS:
            raise ValueError(
                f"AttnResNet has no attention='{arch.attention}'; choose one of "
                f'{", ".join(ATTENTIONS)} or None'
            )
        if len(arch.depths) != len(arch.widths):
            raise ValueError(
                f'AttnResNet needs as many depths as widths, not depths={arch.depths}, '
                f'widths={arch.widths}'
            )
        if not set(arch.stages_with_attention()) <= set(range(len(arch.depths))):
            raise ValueError(
                f'attention_stages={arch.attention_stages} of AttnResNet must lie in '
                f'0..{len(arch.depths) - 1}'
            )

    @property
    def stages(self) -> list[nn.Sequential]:
        """The built stages, without the units behind them."""
        return [getattr(self, f'layer{s + 1}') for s in range(self.num_stages)]

    def stem(self, x: Tensor) -> Tensor:
        """Computes what the first stage takes: B, 64, ceil(H / 4), ceil(W / 4)."""
        x = self.relu(self.bn1(self.conv1(x)))  # B, C, H/2, W/2
        if x.device.type == 'cpu' and x.is_contiguous():
            # torch vectorises this pooling only over channels that lie next to each other.
            return self.maxpool(x.contiguous(memory_format=torch.channels_last)).contiguous()
        return self.maxpool(x)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Computes the maps of ``out_indices``; see :meth:`DenseBackbone.forward`."""
        self.check_input(x)
        if self.arch.attention == 'sge' and x.device.type == 'cpu':
            x = x.contiguous()  # the layout that SGE is fast with
        x = self.stem(x)  # B, C, H/4, W/4
        outputs = []
        for index, stage in enumerate(self.stages):
            for block in stage:
                x = self.run_block(block, x)  # B, C, H/s, W/s
            bam = getattr(self, f'bam{index + 1}', None)
            if bam is not None:
                x = self.run_block(bam, x)
            if index in self.out_indices:
                outputs.append(self.output(index, x))
        return tuple(outputs)

    def forward_pooled(self, x: Tensor, return_maps: bool = True) -> PooledTokens:
        """Computes image-level features by attention pooling of the last stage's map.

        Args:
            x: Images, B, 3, H, W.
            return_maps: Whether to return the attention maps as well.

        Returns:
            The normalised class tokens B, K, C and the attention maps B, K, ceil(H / 32),
            ceil(W / 32).

        Raises:
            RuntimeError: Built with ``pooling=False``, or without the last stage.
        """
        if self.pool is None or self.num_stages < len(self.arch.depths):
            raise RuntimeError(
                f'forward_pooled needs AttnResNet(pooling=True) with the last stage '
                f'({len(self.arch.depths) - 1}) in out_indices, which are {self.out_indices}'
            )
        tokens, maps = self.pool(self(x)[-1], return_maps=return_maps)
        return PooledTokens(self.pool_norm(tokens), maps)

    def stage_prefixes(self) -> list[tuple[str, ...]]:
        """Returns the parameter-name prefixes of the stem (entry 0) and of each stage."""
        stages = [(f'bam{s}', f'layer{s + 1}') for s in range(self.num_stages)]
        return [('conv1', 'bn1'), *stages]

    def layer_prefixes(self) -> list[tuple[str, ...]]:
        """Returns the parameter-name prefixes of each layer; see :class:`DenseBackbone`."""
        blocks = [
            (f'layer{s + 1}.{b}',) if b else (f'bam{s}', f'layer{s + 1}.0')
            for s, stage in enumerate(self.stages)
            for b in range(len(stage))
        ]
        return [self.stage_prefixes()[0], *blocks]

    def is_unbuilt(self, name: str) -> bool:
        """Tells whether a parameter lies in a stage of the variant that no output needs."""
        match = re.match(r'(?:layer|bam)(\d+)\.', name)
        return bool(match) and self.num_stages < int(match[1]) <= len(self.arch.depths)

    @torch.no_grad()
    def fold(self) -> None:
        """Folds every BatchNorm behind a convolution into it, for inference."""
        fuse_conv_bn(self)
