"""MetaFormer: PoolFormer and the other token mixers in the same frame.

MetaFormer Is Actually What You Need for Vision, arXiv 2111.11418 (PoolFormer, hybrids, ablations);
MetaFormer Baselines for Vision, arXiv 2210.13452 (IdentityFormer, RandFormer, PoolFormerV2,
ConvFormer, CAFormer).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attnpool_backbones.backbones.base import DenseBackbone, Stage
from attnpool_backbones.backbones.choices import drop_path_rates
from attnpool_backbones.backbones.metaformer_archs import ARCHS, MetaFormerArch, require_norm
from attnpool_backbones.backbones.metaformer_block import MetaFormerBlock
from attnpool_backbones.layers.named_norms import NORMS
from attnpool_backbones.layers.patch_embedding import PatchEmbedding
from attnpool_backbones.layers.position_embedding import resize_position_embedding
from attnpool_backbones.layers.token_mixers import SpatialFC, resize_spatial_matrix
from attnpool_backbones.layers.windows import check_windows, window_of_block
from attnpool_backbones.registry import MODELS


@MODELS.register_module()
class MetaFormer(DenseBackbone):
    """PoolFormer and its relatives (arXiv 2111.11418, arXiv 2210.13452).

    The trunk works in ``channels_last`` memory.

    Variants: ``poolformer_{s12,s24,s36,m36,m48}``; the first paper's hybrids
    ``metaformer_{id,pppa,ppaa,pppf,ppff}_s12`` (one letter a stage: pooling, attention, spatial
    FC), with ``metaformer_{aaaa,ffff}_s12`` of ours, and its ablations
    ``poolformer_s12_{random,dwconv,pool5,pool7,pool9,layernorm,batchnorm,nonorm,relu,silu,
    noresidual,nomlp}``; the second paper's
    ``{identityformer,randformer,poolformerv2}_{s12,s24,s36,m36,m48}`` and
    ``{convformer,caformer}_{s18,s36,m36,b36}``; for CPU work, ours, ``nano`` (pooling), its
    hybrids and ablations (``nano_pppa``, ``nano_relu`` ...) and ``caformer_nano``.

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
        windows: Side of the attention windows of each stage in positions, None for attention over
            the whole map, e.g. ``(None, None, 14, 7)``, the grid of pretraining. Default: no
            windows.
        global_every: Of a windowed stage's blocks with attention, every so many the last one
            attends over the whole map (as arXiv 2203.16527): 3 makes a third of them global.
            Default: 0, none.
        frozen_stages: See :class:`DenseBackbone`.
        norm_eval: See :class:`DenseBackbone`.
        with_cp: See :class:`DenseBackbone`.
        init_cfg: See :class:`DenseBackbone`.

    Raises:
        ValueError: An unknown name, or fields of ``arch`` that do not fit each other.
    """

    Arch = MetaFormerArch
    archs = ARCHS
    memory_format = torch.channels_last

    def __init__(
        self,
        arch: str | Mapping[str, Any] = 'poolformer_s12',
        out_indices: int | Sequence[int] = (0, 1, 2, 3),
        out_norm: str | None = None,
        pretrain_img_size: int | tuple[int, int] = 224,
        drop_path_rate: float = 0.0,
        windows: Sequence[int | None] | None = None,
        global_every: int = 0,
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
        require_norm(out_norm)
        attends = [mixer == 'attention' for mixer in arch.mixers]
        windows = check_windows(windows, attends, global_every, 'MetaFormer')
        strides = [4 * 2**i for i in range(len(arch.depths))]
        self.choose_outputs(out_indices, arch.widths, strides)

        side = pretrain_img_size
        height, width = (side, side) if isinstance(side, int) else side
        grids = [(-(-height // stride), -(-width // stride)) for stride in strides]
        rates = iter(drop_path_rates(drop_path_rate, 'linear', sum(arch.depths)))
        self.stem = PatchEmbedding(
            3,
            arch.widths[0],
            kernel_size=7,
            stride=4,
            padding=2,
            norm='after' if arch.patch_norm else None,
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
                MetaFormerBlock(
                    arch, i, grids[i], next(rates), window_of_block(windows[i], b, global_every)
                )
                for b in range(arch.depths[i])
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
