"""DeepViT's variants, as data (arXiv 2103.11886, table 5 and the released code)."""

from collections.abc import Sequence
from dataclasses import dataclass


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
    """Hidden width of the MLPs over ``width``."""
    cnn_embedding: bool = False
    """Whether two convolutions, which take a stride of 2, come before the patch embedding."""
    stride: int = 16
    """Edge of a patch in pixels, even with ``cnn_embedding``."""
    image_size: int = 224
    """Edge of the pretraining's images in pixels: sizes the position table."""

    def __post_init__(self):
        wrong = []
        if self.width % self.num_heads:
            wrong.append(f'width={self.width} is no multiple of num_heads={self.num_heads}')
        if self.image_size % self.stride:
            wrong.append(f'image_size={self.image_size} is no multiple of stride={self.stride}')
        if self.cnn_embedding and self.stride % 2:
            wrong.append(f'stride={self.stride} is odd before cnn_embedding')
        if not set(self.reattention) <= set(range(self.depth)):
            wrong.append(f'reattention={self.reattention} is not within 0..{self.depth - 1}')
        if wrong:
            raise ValueError(f'arch of DeepViT: {"; ".join(wrong)}')


_DEPTHS = (12, 16, 24, 32)
"""Of the article's experiments."""


def _deepvit(width: int, depth: int, first: int, **options) -> DeepViTArch:
    return DeepViTArch(width=width, depth=depth, reattention=tuple(range(first, depth)), **options)


_NANO = dict(num_heads=4, residual_scale=0.5, cnn_embedding=True, stride=8, image_size=192)

ARCHS = {
    'nano': _deepvit(128, 8, 5, **_NANO),
    # The article's experiments at its size: all blocks mix, or none, by depth; plain by width.
    **{f'nano_{depth}b': _deepvit(128, depth, 0, **_NANO) for depth in _DEPTHS},
    **{f'nano_vit_{depth}b': _deepvit(128, depth, depth, **_NANO) for depth in _DEPTHS},
    **{f'nano_vit_12b_{width}': _deepvit(width, 12, 12, **_NANO) for width in (64, 192, 256)},
    '12b': _deepvit(384, 12, 0),
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
