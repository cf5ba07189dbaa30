"""Learned absolute position embeddings of maps."""

from torch import Tensor
from torch.nn import functional as F


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
    return F.interpolate(table, size=size, mode='bicubic', align_corners=False)
