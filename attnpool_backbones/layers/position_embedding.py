"""Learned absolute position embeddings of maps."""

import torch
from torch import Tensor, nn

from attnpool_backbones.ops.resampling import bicubic


def resize_position_embedding(table: Tensor, size: tuple[int, int]) -> Tensor:
    """Interpolates a position embedding (bicubic, as is usual since arXiv 2012.12877).

    Args:
        table: 1, C, h, w.
        size: Height and width to resize to.

    Returns:
        1, C, ``size``; ``table`` itself where the size is its own.
    """
    if tuple(table.shape[-2:]) == tuple(size):
        return table
    return bicubic(table, size)


class PositionEmbedding(nn.Module):
    """A learned vector for each position, added to a map (arXiv 2010.11929, eq. 1).

    Args:
        channels: Channels of the map.
        grid: Height and width of the map in pretraining; the embedding is interpolated to others.
    """

    undecayed = ('pos_embed',)

    def __init__(self, channels: int, grid: tuple[int, int]):
        super().__init__()
        self.pos_embed = nn.Parameter(torch.empty(1, channels, *grid))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        return x + resize_position_embedding(self.pos_embed, x.shape[-2:])
