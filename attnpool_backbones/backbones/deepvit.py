"""DeepViT: a vision transformer whose attention maps are mixed across heads.

DeepViT: Towards Deeper Vision Transformer, arXiv 2103.11886.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn
from torch.nn import functional as F

from attnpool_backbones.backbones.base import DenseBackbone, taps_of_depth
from attnpool_backbones.layers.activations import gelu
from attnpool_backbones.layers.conv_norm import conv_norm, fold_norms
from attnpool_backbones.layers.norm import LayerNorm2d
from attnpool_backbones.layers.position_embedding import resize_position_embedding
from attnpool_backbones.layers.re_attention import HeadMixing, LazyMaps, ReAttention
from attnpool_backbones.registry import MODELS

CNN_WIDTH = 64
"""Channels of the two convolutions in front of a convolutional patch embedding."""
EPS = 1e-6
"""Of all layer norms."""
OUT_NORMS = (None, 'final', 'all')
"""Choices of :class:`DeepViT`'s ``out_norm``."""


@dataclass(frozen=True, kw_only=True)
class DeepViTArch:
    """The numbers that make a DeepViT; without ``reattention`` it is a plain ViT."""

    width: int
    """Channels; a multiple of the heads."""
    depth: int
    """Blocks."""
    num_heads: int = 12
    """Heads of every block."""
    reattention: Sequence[int] = ()
    """Blocks (0-based) that mix their maps; the others attend plainly."""
    scale_maps: bool = False
    """Whether mixed maps are multiplied by (width / num_heads)^-0.5."""
    residual_scale: float = 1.0
    """r: a branch is ``f(LN(r x)) / r``."""
    mlp_ratio: float = 3.0
    """Hidden width of the feed-forward layers over ``width``."""
    cnn_embedding: bool = False
    """Two convolutions in front of the patch embedding (stride 2 of its stride) or none."""
    stride: int = 16
    """Edge of a patch in pixels, even with ``cnn_embedding``."""
    image_size: int = 224
    """Edge of the pretraining's images in pixels: sizes the position table."""


class TokenStem(nn.Module):
    """Image to tokens: patch embedding, class token, position embedding.

    Images are padded with zeros at the right and at the bottom to a multiple of the stride.

    Args:
        width: Channels C of the tokens.
        stride: Edge of a patch in pixels.
        grid: Edge of the position table in patches.
        cnn: Whether two convolutions precede the embedding.
    """

    def __init__(self, width: int, stride: int, grid: int, cnn: bool):
        super().__init__()
        self.stride = stride
        self.cnn = cnn
        if cnn:
            self.conv1 = nn.Conv2d(3, CNN_WIDTH, 7, stride=2, padding=3, bias=False)
            self.bn1 = nn.BatchNorm2d(CNN_WIDTH)
            self.conv2 = nn.Conv2d(CNN_WIDTH, CNN_WIDTH, 3, padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(CNN_WIDTH)
        patch = stride // 2 if cnn else stride
        self.proj = nn.Conv2d(CNN_WIDTH if cnn else 3, width, patch, stride=patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid**2, width))
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def embed(self, x: Tensor) -> Tensor:
        """Embeds the patches of images B, 3, H, W; returns a map B, C, H / stride, W / stride."""
        bottom, right = (-size % self.stride for size in x.shape[-2:])
        if bottom or right:
            x = F.pad(x, (0, right, 0, bottom))
        if self.cnn:
            # Over a third faster on a CPU, and the tokens lie as the blocks want them.
            x = x.contiguous(memory_format=torch.channels_last)
            x = F.relu(conv_norm(x, self.conv1, self.bn1), inplace=True)  # B, 64, H/2, W/2
            x = F.relu(conv_norm(x, self.conv2, self.bn2), inplace=True)  # B, 64, H/2, W/2
        return self.proj(x)  # B, C, H/stride, W/stride

    def forward(self, x: Tensor) -> Tensor:
        """Returns the tokens B, 1 + N, C of images B, 3, H, W, the class token first."""
        x = self.embed(x)
        positions = resize_positions(self.pos_embed, x.shape[-2:])
        x = x.flatten(2).transpose(1, 2)  # B, N, C
        return torch.cat([self.cls_token.to(x.dtype).expand(len(x), -1, -1), x], 1) + positions

    def fold(self) -> None:
        """Folds the BatchNorms into the convolutions for inference."""
        if self.cnn:
            fold_norms(self.conv1, self.bn1)
            fold_norms(self.conv2, self.bn2)
            self.bn1, self.bn2 = nn.Identity(), nn.Identity()


def resize_positions(table: Tensor, grid: Sequence[int]) -> Tensor:
    """Resizes a position table whose first entry is the class token's.

    Args:
        table: 1, 1 + S * S, C.
        grid: Rows and columns of the wanted grid.

    Returns:
        1, 1 + rows * columns, C; ``table`` itself if it has that grid.
    """
    edge = round(int(table.shape[1] - 1) ** 0.5)  # a tensor under torch.jit.trace
    if tuple(grid) == (edge, edge):
        return table
    patches = table[:, 1:].transpose(1, 2).unflatten(2, (edge, edge))  # 1, C, S, S
    patches = resize_position_embedding(patches, tuple(grid))  # 1, C, rows, columns
    return torch.cat([table[:, :1], patches.flatten(2).transpose(1, 2)], 1)


class Mlp(nn.Module):
    """Feed-forward layer with one hidden layer and GELU.

    Args:
        width: Channels in and out.
        hidden: Channels of the hidden layer.
    """

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        for linear in (self.fc1, self.fc2):
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(gelu(self.fc1(x)))


class DeepViTBlock(nn.Module):
    """Pre-norm transformer block whose two branches are ``f(LN(r x)) / r``.

    Args:
        arch: Gives widths and the scale r.
        mixing: Of the attention maps. Default: none, plain attention.
        drop_path: Probability of dropping a branch of a sample.
    """

    def __init__(self, arch: DeepViTArch, mixing: HeadMixing | None, drop_path: float):
        super().__init__()
        # LN(r x) with eps is LN(x) with eps / r^2: one pass over the tokens less.
        eps = EPS / arch.residual_scale**2
        self.norm1 = nn.LayerNorm(arch.width, eps=eps)
        self.attn = ReAttention(arch.width, arch.num_heads, mixing)
        self.norm2 = nn.LayerNorm(arch.width, eps=eps)
        self.mlp = Mlp(arch.width, int(arch.width * arch.mlp_ratio))
        self.drop_path = DropPath(drop_path)
        self.gain = 1 / arch.residual_scale

    def forward(self, x: Tensor, with_maps: bool = False) -> Tensor | tuple[Tensor, LazyMaps]:
        """Returns tokens B, N, C of tokens B, N, C, and the attention maps if asked for."""
        y, maps = self.attn(self.norm1(x), with_maps=True)
        x = torch.add(x, self.drop_path(y), alpha=self.gain)
        x = torch.add(x, self.drop_path(self.mlp(self.norm2(x))), alpha=self.gain)
        return (x, maps) if with_maps else x


class BlockMaps(NamedTuple):
    """What a block of a DeepViT attends to and returns."""

    softmax: Tensor
    """Softmax maps B, H, N, N, the class token first."""
    mixed: Tensor
    """Maps that multiply the values, B, H, N, N; those above in a block that does not mix."""
    tokens: Tensor
    """Output of the block, B, N, C, the class token first."""


def _deepvit(width: int, depth: int, first: int, **options) -> DeepViTArch:
    return DeepViTArch(width=width, depth=depth, reattention=tuple(range(first, depth)), **options)


@MODELS.register_module()
class DeepViT(DenseBackbone):
    """DeepViT and the plain ViT it is compared with (arXiv 2103.11886).

    The class token takes part in the attention; the maps returned are the patch tokens.
    ``ScalePyramid`` turns taps into strides 4, 8, 16 and 32.

    Args:
        arch: ``'16b'``, ``'24b'``, ``'32b'`` (re-attention in every block), ``'s'``, ``'l'``,
            ``'l_384'`` (convolutional patch embedding, re-attention in the last third), ``'nano'``
            (for CPU work, ours), the plain ViT ``'vit_12b'``, ``'vit_16b'``, ``'vit_24b'``,
            ``'vit_32b'``, ``'vit_12b_256'``, ``'vit_12b_512'``, ``'vit_12b_768'`` (of another
            width), or a mapping with the fields of :class:`DeepViTArch`.
        out_indices: Blocks whose outputs are returned. Default: 1/3, 1/2, 2/3 and 1 of the depth.
        drop_path_rate: Stochastic depth (arXiv 1603.09382) of the last block; linear from 0.
        map_norm: Norm behind the mixing: ``'BN'`` as released, ``'LN'`` over the heads, or None.
        stats_tokens: What the map norm does with another number of tokens than in pretraining:
            ``'rescale'``, ``'fixed'`` or ``'live'``; see :class:`HeadMixing`.
        out_norm: Layer norms on the maps returned. None: the residual stream as it is (a neck that
            normalises its taps follows); ``'final'``: the official final norm, on the last block's
            map alone; ``'all'``: one on every map, the last block's being the official one.
        frozen_stages: See :class:`DenseBackbone`; a stage is a block.
        norm_eval: See :class:`DenseBackbone`; the map norms count, too.
        with_cp: See :class:`DenseBackbone`.
        init_cfg: See :class:`DenseBackbone`.

    Raises:
        ValueError: Inconsistent numbers in ``arch`` or an unknown option.
    """

    Arch = DeepViTArch
    archs = {
        'nano': _deepvit(
            128, 8, 5, num_heads=4, residual_scale=0.5, cnn_embedding=True, stride=8,
            image_size=192,
        ),
        '16b': _deepvit(384, 16, 0),
        '24b': _deepvit(384, 24, 0),
        '32b': _deepvit(384, 32, 0),
        's': _deepvit(396, 16, 11, scale_maps=True, residual_scale=0.5, cnn_embedding=True),
        'l': _deepvit(420, 32, 20, residual_scale=0.5, cnn_embedding=True),
        'l_384': _deepvit(420, 32, 20, residual_scale=0.5, cnn_embedding=True, image_size=384),
        'vit_12b': DeepViTArch(width=384, depth=12),
        'vit_16b': DeepViTArch(width=384, depth=16),
        'vit_24b': DeepViTArch(width=384, depth=24),
        'vit_32b': DeepViTArch(width=384, depth=32),
        'vit_12b_256': DeepViTArch(width=256, depth=12, num_heads=8),
        'vit_12b_512': DeepViTArch(width=512, depth=12, num_heads=8),
        'vit_12b_768': DeepViTArch(width=768, depth=12),
    }  # fmt: skip
    trunk = 'blocks'

    def __init__(
        self,
        arch: str | Mapping[str, Any] = 's',
        out_indices: int | Sequence[int] | None = None,
        drop_path_rate: float = 0.0,
        map_norm: str | None = 'BN',
        stats_tokens: str = 'rescale',
        out_norm: str | None = None,
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
        self._check_arch(a)
        if out_norm not in OUT_NORMS:
            raise ValueError(f'out_norm of DeepViT must be one of {OUT_NORMS}, not {out_norm!r}')
        taps = taps_of_depth(a.depth) if out_indices is None else out_indices
        self.out_indices = self.resolve_out_indices(taps, a.depth)
        self.out_channels = (a.width,) * len(self.out_indices)
        self.out_strides = (a.stride,) * len(self.out_indices)

        grid = a.image_size // a.stride
        self.stem = TokenStem(a.width, a.stride, grid, a.cnn_embedding)
        rates = self.drop_path_rates(drop_path_rate, 'linear', a.depth)
        scale = (a.width // a.num_heads) ** -0.5 if a.scale_maps else 1.0
        self.blocks = nn.ModuleList()
        for i in range(self.out_indices[-1] + 1):
            mixing = None
            if i in a.reattention:
                mixing = HeadMixing(a.num_heads, 1 + grid**2, map_norm, scale, stats_tokens)
            self.blocks.append(DeepViTBlock(a, mixing, rates[i]))
        normed = {'all': self.out_indices, 'final': (a.depth - 1,)}.get(out_norm, ())
        self.out_norms = nn.ModuleDict(
            {str(i): LayerNorm2d(a.width, eps=EPS) for i in normed if i in self.out_indices}
        )
        self.finish_init()

    @staticmethod
    def _check_arch(arch: DeepViTArch) -> None:
        wrong = []
        if arch.width % arch.num_heads:
            wrong.append(f'width={arch.width} is no multiple of num_heads={arch.num_heads}')
        if arch.image_size % arch.stride:
            wrong.append(f'image_size={arch.image_size} is no multiple of stride={arch.stride}')
        if arch.cnn_embedding and arch.stride % 2:
            wrong.append(f'stride={arch.stride} is odd in front of cnn_embedding')
        if not set(arch.reattention) <= set(range(arch.depth)):
            wrong.append(f'reattention={arch.reattention} is not within 0..{arch.depth - 1}')
        if wrong:
            raise ValueError(f'arch of DeepViT: {"; ".join(wrong)}')

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Computes the taps; see :meth:`DenseBackbone.forward`."""
        return self.forward_lazy_maps(x, 0)[0]

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
        """
        self.check_input(x)
        grid = [-(-size // self.arch.stride) for size in x.shape[-2:]]
        x = self.stem(x)  # B, 1 + h * w, C
        taps, maps = [], []
        for index, block in enumerate(self.blocks):
            if index < num_blocks:
                x, block_maps = self.run_block(block, x, True)
                maps.append(block_maps)
            else:
                x = self.run_block(block, x)  # B, 1 + h * w, C
            if index in self.out_indices:
                taps.append(self.output(index, self.patch_map(x, grid)))
        return tuple(taps), maps

    @staticmethod
    def patch_map(tokens: Tensor, grid: Sequence[int]) -> Tensor:
        """Views the patch tokens of B, 1 + h * w, C as a map B, C, h, w."""
        return tokens[:, 1:].transpose(1, 2).unflatten(2, tuple(grid))

    def forward_maps(self, x: Tensor) -> list[BlockMaps]:
        """Computes all attention maps, which take B * H * N^2 numbers in each block.

        Args:
            x: Images, B, 3, H, W.

        Returns:
            One entry for each block.
        """
        self.check_input(x)
        x = self.stem(x)
        blocks = []
        for block in self.blocks:
            x, maps = block(x, with_maps=True)
            blocks.append(BlockMaps(maps.softmax(), maps.mixed(), x))
        return blocks

    def adapt_state_dict(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Fits head mixing that was learned with another number of tokens, see
        :meth:`HeadMixing.adapt`; the checkpoint's position table tells how many there were."""
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
