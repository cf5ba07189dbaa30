"""DeepViT: a vision transformer whose attention maps are mixed across heads.

DeepViT: Towards Deeper Vision Transformer, arXiv 2103.11886.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from attnpool_backbones.backbones.base import MIN_TRUNK_SIZE, DenseBackbone
from attnpool_backbones.backbones.choices import drop_path_rates, taps_of_depth
from attnpool_backbones.backbones.deepvit_archs import ARCHS, DeepViTArch
from attnpool_backbones.layers.mlp import MLP
from attnpool_backbones.layers.norm import LayerNorm2d
from attnpool_backbones.layers.re_attention import HeadMixing, ReAttention
from attnpool_backbones.layers.token_stem import TokenStem, resize_positions
from attnpool_backbones.layers.windows import check_global_blocks, window_of_block
from attnpool_backbones.ops.re_attention import LazyMaps
from attnpool_backbones.registry import MODELS

EPS = 1e-6
"""Of all layer norms."""
OUT_NORMS = (None, 'final', 'all')
"""Choices of :class:`DeepViT`'s ``out_norm``."""


class DeepViTBlock(nn.Module):
    """Pre-norm transformer block whose two branches are ``f(LN(r x)) / r``.

    Args:
        arch: Gives widths and the scale r.
        mixing: Of the attention maps. Default: none, plain attention.
        drop_path: Probability of dropping a branch of a sample.
        window: Side of the attention windows. Default: all tokens attend to each other.
    """

    def __init__(
        self,
        arch: DeepViTArch,
        mixing: HeadMixing | None,
        drop_path: float,
        window: int | None = None,
    ):
        super().__init__()
        # LN(r x) with eps is LN(x) with eps / r^2: one pass over the tokens less.
        eps = EPS / arch.residual_scale**2
        self.norm1 = nn.LayerNorm(arch.width, eps=eps)
        self.attn = ReAttention(arch.width, arch.num_heads, mixing, window)
        self.norm2 = nn.LayerNorm(arch.width, eps=eps)
        self.mlp = MLP(arch.width, int(arch.width * arch.mlp_ratio))
        for linear in (self.mlp.fc1, self.mlp.fc2):
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
        self.drop_path = DropPath(drop_path)
        self.gain = 1 / arch.residual_scale

    def forward(
        self, x: Tensor, with_maps: bool = False, grid: tuple[int, int] | None = None
    ) -> Tensor | tuple[Tensor, LazyMaps | None]:
        """Returns tokens B, N, C of tokens B, N, C, and the attention maps if asked for."""
        y, maps = self.attn(self.norm1(x), with_maps=True, grid=grid)
        x = torch.add(x, self.drop_path(y), alpha=self.gain)
        x = torch.add(x, self.drop_path(self.mlp(self.norm2(x))), alpha=self.gain)
        return (x, maps) if with_maps else x


@MODELS.register_module()
class DeepViT(DenseBackbone):
    """DeepViT and the plain ViT it is compared with (arXiv 2103.11886).

    The class token takes part in the attention; the maps returned are the patch tokens.
    ``ScalePyramid`` turns taps into strides 4, 8, 16 and 32.

    Args:
        arch: A name of ``DeepViT.archs``: those of the paper, e.g. ``'16b'`` (16 blocks, all with
            re-attention) and the plain ``'vit_16b'`` beside it; the released ``'s'``, ``'l'``,
            ``'l_384'`` (convolutional patch embedding, re-attention in the last third); ``'nano'``
            (for CPU work, ours); or a mapping with the fields of :class:`DeepViTArch`.
        out_indices: Blocks whose outputs are returned. Default: 1/3, 1/2, 2/3 and 1 of the depth.
        drop_path_rate: Stochastic depth (arXiv 1603.09382) of the last block; linear from 0.
        map_norm: Norm after the mixing: ``'BN'`` as released, ``'LN'`` over the heads, or None.
        stats_tokens: What the map norm does with another number of tokens than in pretraining:
            ``'rescale'``, ``'fixed'`` or ``'live'``; see :class:`HeadMixing`.
        out_norm: Layer norms on the maps returned. None: the residual stream as it is (a neck that
            normalises its taps follows); ``'final'``: the official final norm, on the last block's
            map alone; ``'all'``: one on every map, the last block's being the official one.
        window: Side of attention windows in patches, e.g. 14, the grid of pretraining at 224
            pixels; the class token takes part in all of them, see :class:`ReAttention`. Attention
            maps over all tokens do not exist then. Default: all tokens attend to each other.
        global_every: With ``window``, every so many blocks the last one attends over all tokens
            (as arXiv 2203.16527): 4 makes a quarter of them global. Default: 0, none.
        frozen_stages: See :class:`DenseBackbone`; a stage is a block.
        norm_eval: See :class:`DenseBackbone`; the map norms count, too.
        with_cp: See :class:`DenseBackbone`.
        init_cfg: See :class:`DenseBackbone`.

    Raises:
        ValueError: Inconsistent numbers in ``arch`` or an unknown option.
    """

    Arch = DeepViTArch
    archs = ARCHS
    trunk = 'blocks'

    def __init__(
        self,
        arch: str | Mapping[str, Any] = 's',
        out_indices: int | Sequence[int] | None = None,
        drop_path_rate: float = 0.0,
        map_norm: str | None = 'BN',
        stats_tokens: str = 'rescale',
        out_norm: str | None = None,
        window: int | None = None,
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
        a = self.arch
        if out_norm not in OUT_NORMS:
            raise ValueError(f'out_norm of DeepViT must be one of {OUT_NORMS}, not {out_norm!r}')
        if window is not None and window < 1:
            raise ValueError(f'window={window} of DeepViT must be None or from 1 on')
        check_global_blocks(global_every, window is not None, 'DeepViT')
        self.window = window
        taps = taps_of_depth(a.depth) if out_indices is None else out_indices
        self.choose_outputs(taps, (a.width,) * a.depth, (a.stride,) * a.depth)

        grid = a.image_size // a.stride
        self.stem = TokenStem(a.width, a.stride, grid, a.cnn_embedding)
        rates = drop_path_rates(drop_path_rate, 'linear', a.depth)
        scale = (a.width // a.num_heads) ** -0.5 if a.scale_maps else 1.0
        self.blocks = nn.ModuleList()
        for i in range(self.out_indices[-1] + 1):
            mixing = None
            if i in a.reattention:
                mixing = HeadMixing(a.num_heads, 1 + grid**2, map_norm, scale, stats_tokens)
            side = window_of_block(window, i, global_every)
            self.blocks.append(DeepViTBlock(a, mixing, rates[i], side))
        normed = {'all': self.out_indices, 'final': (a.depth - 1,)}.get(out_norm, ())
        self.out_norms = nn.ModuleDict(
            {str(i): LayerNorm2d(a.width, eps=EPS) for i in normed if i in self.out_indices}
        )
        self.finish_init()

    def run_trunk(self, x: Tensor, run: Callable[..., Any]) -> tuple[Tensor, ...]:
        """Runs stem and blocks, see :meth:`DenseBackbone.run_trunk`; windows know their grid."""
        if self.window is None:
            return super().run_trunk(x, run)
        self.check_input(x)
        grid = self._grid([max(side, MIN_TRUNK_SIZE) for side in x.shape[-2:]])
        return super().run_trunk(x, lambda block, tokens: run(block, tokens, False, grid))

    def _grid(self, image_size: Sequence[int]) -> tuple[int, int]:
        """Returns height and width of the patches of an image."""
        stride = self.arch.stride
        # no negative numbers, which ONNX divides towards zero
        return tuple((size + stride - 1) // stride for size in image_size)

    def forward_lazy_maps(
        self, x: Tensor, num_blocks: int
    ) -> tuple[tuple[Tensor, ...], list[LazyMaps]]:
        """Computes the taps and gives access to the attention maps of the first blocks.

        Args:
            x: Images, B, 3, H, W.
            num_blocks: Blocks whose maps are wanted.

        Returns:
            The taps as :meth:`forward` returns them, and the maps, differentiable, e.g. for
            :class:`attnpool_backbones.heads.AttentionSimilarityLoss`. They hold queries and keys;
            the maps are computed when asked for.

        Raises:
            ValueError: The attention is cut into windows.
        """
        if self.window is not None:
            raise ValueError(
                f'DeepViT has attention maps over all tokens without windows only, not with '
                f'window={self.window}'
            )
        maps = []

        def run(block: nn.Module, x: Tensor) -> Tensor:
            if len(maps) == num_blocks:
                return self.run_block(block, x)
            x, block_maps = self.run_block(block, x, True)
            maps.append(block_maps)
            return x

        return self.run_trunk(x, run), maps

    def as_map(self, x: Tensor, image_size: Sequence[int]) -> Tensor:
        """Takes the patch tokens as a map; see :meth:`DenseBackbone.as_map`."""
        return self.patch_map(x, self._grid(image_size))

    @staticmethod
    def patch_map(tokens: Tensor, grid: Sequence[int]) -> Tensor:
        """Views the patch tokens of B, 1 + h * w, C as a map B, C, h, w."""
        return tokens[:, 1:].transpose(1, 2).unflatten(2, tuple(grid))

    def adapt_state_dict(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Fits head mixing that was learned with another number of tokens.

        The checkpoint's position table tells how many there were; see :meth:`HeadMixing.adapt`.
        """
        table = state_dict.get('stem.pos_embed')
        if table is None or table.dim() != 3:
            return {}
        changed = {}
        for path, module in self.named_modules():
            if isinstance(module, HeadMixing):
                start = f'{path}.'
                weights = {
                    n.removeprefix(start): v for n, v in state_dict.items() if n.startswith(start)
                }
                adapted = module.adapt(weights, table.shape[1])
                changed |= {start + name: value for name, value in adapted.items()}
        return changed

    def adapt_parameter(self, name: str, value: Tensor) -> Tensor | None:
        """Resizes a checkpoint's position table; see :meth:`DenseBackbone.adapt_parameter`."""
        table = self.stem.pos_embed
        if name != 'stem.pos_embed' or value.dim() != 3 or value.shape[2] != table.shape[2]:
            return None
        if round((value.shape[1] - 1) ** 0.5) ** 2 != value.shape[1] - 1:
            return None
        edge = self.arch.image_size // self.arch.stride
        return resize_positions(value, (edge, edge))
