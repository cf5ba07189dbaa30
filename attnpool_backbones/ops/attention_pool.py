"""Pooling of a map into bins by weights, where an average has none."""

import torch
from torch import Tensor

from attnpool_backbones.ops.formula import operator


def windows(size: int, bins: int) -> list[tuple[int, int]]:
    """Returns first and last position (exclusive) of each bin, as adaptive average pooling has."""
    return [(i * size // bins, -(-(i + 1) * size // bins)) for i in range(bins)]


@operator
def attention_pool(x: Tensor, scores: Tensor, bins: tuple[int, int]) -> Tensor:
    """Returns sum_n softmax_n(scores) x over the positions n of each bin (arXiv 2112.13692).

    With equal scores it is adaptive average pooling.

    Args:
        x: Map B, C, H, W.
        scores: Of each head and position, B, G, H, W; head g weighs the g-th C / G channels.
        bins: Rows and columns of the result.

    Returns:
        B, C, rows, columns.
    """
    heads, pooled = scores.shape[1], []
    for top, bottom in windows(x.shape[2], bins[0]):
        for left, right in windows(x.shape[3], bins[1]):
            values = x[..., top:bottom, left:right].flatten(2).unflatten(1, (heads, -1))
            weights = scores[..., top:bottom, left:right].flatten(2).softmax(-1)  # B, G, n
            pooled.append((values * weights[:, :, None]).sum(-1).flatten(1))  # B, C
    return torch.stack(pooled, -1).unflatten(-1, bins)


@attention_pool.fast
def _(x: Tensor, scores: Tensor, bins: tuple[int, int]) -> Tensor:
    # One product for all bins: what is outside of a bin weighs nothing in it.
    rows, columns = (_outside(n, b, x.device) for n, b in zip(x.shape[2:], bins, strict=True))
    outside = (rows[:, None, :, None] | columns[None, :, None, :]).flatten(0, 1).flatten(1)
    scores = scores.flatten(2)[:, :, None].masked_fill(outside, float('-inf'))  # B, G, bins, H*W
    values = x.flatten(2).unflatten(1, (scores.shape[1], -1))  # B, G, C/G, H*W
    return (values @ scores.softmax(-1).mT).flatten(1, 2).unflatten(-1, bins)


def _outside(size: int, bins: int, device: torch.device) -> Tensor:
    """Returns which positions are outside of each bin: bins, size."""
    first, last = torch.tensor(windows(size, bins), device=device).T[..., None]
    positions = torch.arange(size, device=device)
    return (positions < first) | (positions >= last)
