"""ResNets with an attention unit in every block, after every stage or as pooling.

Deep Residual Learning for Image Recognition, arXiv 1512.03385; Spatial Group-wise Enhance:
Improving Semantic Feature Learning in Convolutional Networks, arXiv 1905.09646; Augmenting
Convolutional networks with attention-based aggregation, arXiv 2112.13692.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from attnpool_backbones.backbones.attn_resnet_archs import ARCHS, AttnResNetArch
from attnpool_backbones.backbones.choices import drop_path_rates
from attnpool_backbones.backbones.pooled import PooledBackbone
from attnpool_backbones.layers.bam import BAM
from attnpool_backbones.layers.folding import fold_norm_after
from attnpool_backbones.layers.norm import build_map_norm
from attnpool_backbones.layers.residual_block import BasicBlock, Bottleneck, resnet_conv
from attnpool_backbones.ops.conv_norm import conv_norm
from attnpool_backbones.ops.layout import channels_last_on_cpu, max_pooled
from attnpool_backbones.registry import MODELS


@MODELS.register_module()
class AttnResNet(PooledBackbone):
    """ResNet with SGE, SE, CBAM, GC, SK, BAM, attention pooling, or nothing of them.

    The convolutional skeleton and the names of its parameters are torchvision's and mmdet's (style
    ``pytorch``: a bottleneck's stride lies on its 3x3 convolution). Strides are 4, 8, 16, 32. With
    BAM an output is the map after the unit.

    Args:
        arch: ``'resnet18'``, ``'resnet34'``, ``'resnet50'``, ``'resnet101'`` and ``'resnet_nano'``
            (for CPU work, ours), plain or after the name of a unit of :data:`ATTENTIONS`, e.g.
            ``'sge_resnet50'`` (``'sk'``: bottlenecks only); ``'nano'`` is ``'sge_resnet_nano'``;
            SGE's ablations, e.g. ``'sge_resnet50_groups32'``, ``'sge_resnet50_scale1_shift0'``,
            ``'sge_resnet50_unnormalized'`` and the same of ``resnet_nano``; SE and GC with
            attention pooling, ``'se_resnet50_attnpool'`` and likewise; or a mapping with the fields
            of :class:`AttnResNetArch`.
        out_indices: Stages whose maps are returned, 0-based.
        drop_path_rate: Stochastic depth of the last block, arXiv 1603.09382; 0 in the first and
            linear between them.
        norm_cfg: Of all norms but that of CBAM, which is always BatchNorm. Default: BatchNorm.
        pooling: Whether to build the attention-pooling layer of arXiv 2112.13692 and the norm
            after it, for :meth:`forward_pooled`. The maps do not depend on them, so keep it off in
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
    archs = ARCHS

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
        norm_cfg = dict(norm_cfg or dict(type='BN'))
        block_type = Bottleneck if arch.bottleneck else BasicBlock
        widths = tuple(width * block_type.expansion for width in arch.widths)
        self.choose_outputs(out_indices, widths, [4 << i for i in range(len(widths))])

        self.conv1 = resnet_conv(3, arch.widths[0], 7, stride=2)
        self.bn1 = build_map_norm(norm_cfg, arch.widths[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.num_stages = self.out_indices[-1] + 1
        rates = iter(drop_path_rates(drop_path_rate, 'linear', sum(arch.depths)))
        for s in range(self.num_stages):
            attention = arch.attention if s in arch.stages_with_attention() else None
            w_before = widths[s - 1] if s else arch.widths[0]
            blocks = [
                block_type(
                    widths[s] if b else w_before,
                    arch.widths[s],
                    2 if s and not b else 1,
                    attention,
                    arch.unit_options(),
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
        self.build_pooling(pooling, widths[-1], arch.num_class_tokens)
        # A CPU's convolutions want weights as the maps lie, and would copy them in every pass.
        self.to(memory_format=torch.channels_last)
        self.finish_init()

    @property
    def stages(self) -> list[nn.Sequential]:
        """The built stages, without the units after them."""
        return [getattr(self, f'layer{s + 1}') for s in range(self.num_stages)]

    def stem(self, x: Tensor) -> Tensor:
        """Computes what the first stage takes: B, 64, ceil(H / 4), ceil(W / 4)."""
        x = channels_last_on_cpu(x)  # there convolutions are a fifth faster with it
        x = self.relu(conv_norm(x, self.conv1, self.bn1))  # B, C, H/2, W/2
        return max_pooled(x, self.maxpool)  # B, C, H/4, W/4

    def stage_modules(self) -> list[tuple[None, list[nn.Module]]]:
        """Returns the blocks of each stage, and the BAM after them."""
        bams = (getattr(self, f'bam{s + 1}', None) for s in range(self.num_stages))
        return [
            (None, [*stage, bam] if bam is not None else [*stage])
            for stage, bam in zip(self.stages, bams, strict=True)
        ]

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
        """Folds every BatchNorm after a convolution into it, for inference."""
        for module in list(self.modules()):
            for (_, conv), (name, norm) in pairwise(list(module.named_children())):
                if isinstance(conv, nn.Conv2d):
                    setattr(module, name, fold_norm_after(conv, norm))
