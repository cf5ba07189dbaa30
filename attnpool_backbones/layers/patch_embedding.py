"""The convolutions that lower the resolution of a MetaFormer (arXiv 2111.11418, section 3.2)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnpool_backbones.layers.norm import LayerNorm2d
from attnpool_backbones.layers.position_embedding import resize_position_embedding
from attnpool_backbones.ops.layout import convolved


class PatchEmbedding(nn.Module):
    """Convolution that lowers the resolution, with a position embedding and a norm if wanted.

    The output has ceil(H / stride) rows and ceil(W / stride) columns: where the convolution alone
    would give one less, zeros are added at the bottom or the right.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        kernel_size: Of the convolution.
        stride: Of the convolution.
        padding: Of the convolution, on all sides.
        norm: Where a layer norm stands: ``'before'`` or ``'after'`` the convolution, or None.
        grid: Height and width of a position embedding; None: no position embedding.
    """

    undecayed = ('pos_embed',)

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
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
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
        x = convolved(F.pad(x, missing) if any(missing) else x, self.proj)
        if self.norm is not None and not self.norm_first:
            x = self.norm(x)
        if self.pos_embed is not None:
            x = x + resize_position_embedding(self.pos_embed, x.shape[-2:])
        return x

    def _missing(self, x: Tensor) -> tuple[int, int, int, int]:
        """Returns how many zeros the input lacks left, right, at the top and at the bottom."""
        kernel, stride, padding = self.kernel_size, self.stride, self.padding
        # What lacks most; more than is missing changes nothing, so that a graph holds for any size.
        most = max(0, kernel - 2 * padding - 1)
        if torch.compiler.is_compiling():
            return 0, most, 0, most
        bottom, right = (
            max(0, ((n - 1) // stride) * stride + kernel - 2 * padding - n) for n in x.shape[-2:]
        )
        return 0, right, 0, bottom
