"""Pooling of a map into bins by learned weights, where an average has none."""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional

from attnpool_backbones.ops.formula import operator
from attnpool_backbones.ops.gradients import gradients_wanted
from attnpool_backbones.ops.precision import full_precision, wide_dtype


def windows(size: int, bins: int) -> list[tuple[int, int]]:
    """Returns first and last position (exclusive) of each bin, as adaptive average pooling has."""
    return [(i * size // bins, -(-(i + 1) * size // bins)) for i in range(bins)]


def position_scores(x: Tensor, query: Tensor) -> Tensor:
    """Returns q x / sqrt(C) of each head and position, B, G, H, W.

    Args:
        x: Map B, C, H, W.
        query: Of each head, G, C.
    """
    return functional.conv2d(x, (query * query.shape[1] ** -0.5)[..., None, None])


@operator
def attention_pool(x: Tensor, query: Tensor, bins: tuple[int, int]) -> Tensor:
    """Returns sum_n softmax_n(q x_n / sqrt(C)) x_n over the positions n of each bin (2112.13692).

    With queries of 0 it is adaptive average pooling.

    Args:
        x: Map B, C, H, W.
        query: Of each head, G, C; head g weighs the g-th C / G channels.
        bins: Rows and columns of the result.

    Returns:
        B, C, rows, columns.
    """
    scores, pooled = position_scores(x, query), []  # B, G, H, W
    for top, bottom in windows(x.shape[2], bins[0]):
        for left, right in windows(x.shape[3], bins[1]):
            values = x[..., top:bottom, left:right].flatten(2).unflatten(1, (len(query), -1))
            weights = scores[..., top:bottom, left:right].flatten(2).softmax(-1)  # B, G, n
            pooled.append((values * weights[:, :, None]).sum(-1).flatten(1))  # B, C
    return torch.stack(pooled, -1).unflatten(-1, bins)


@attention_pool.fast
def _(x: Tensor, query: Tensor, bins: tuple[int, int]) -> Tensor:
    if tuple(bins) == (1, 1):
        if gradients_wanted(x, query) and not torch.compiler.is_compiling():
            pooled = _Pool.apply(x, query)
        else:
            pooled = _pool(x, query)[0]
        return pooled[..., None, None]
    # One product for all bins: what is outside of a bin weighs nothing in it.
    rows, columns = (_outside(n, b, x.device) for n, b in zip(x.shape[2:], bins, strict=True))
    outside = (rows[:, None, :, None] | columns[None, :, None, :]).flatten(0, 1).flatten(1)
    scores = position_scores(x, query).flatten(2)[:, :, None]  # B, G, 1, H*W
    scores = scores.masked_fill(outside, float('-inf'))  # B, G, bins, H*W
    values = x.flatten(2).unflatten(1, (len(query), -1))  # B, G, C/G, H*W
    return (values @ scores.softmax(-1).mT).flatten(1, 2).unflatten(-1, bins)


def _outside(size: int, bins: int, device: torch.device) -> Tensor:
    """Returns which positions are outside of each bin: bins, size."""
    first, last = torch.tensor(windows(size, bins), device=device).T[..., None]
    positions = torch.arange(size, device=device)
    return (positions < first) | (positions >= last)


# One bin. Every head pools all channels, of which it keeps its own: a few operations more a value,
# but both products read the map as it lies, in either layout, without a copy of its channels.


def _pool(x: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the pooled map B, C and the weights B, G, H*W, these at least float32."""
    wide = wide_dtype(x.dtype)
    with full_precision(x.device):
        values = x.flatten(2).to(wide)  # B, C, H*W
        weights = torch.bmm(_asked(query, values), values).softmax(2)
        pooled = torch.bmm(weights, values.mT)  # B, G, C
        heads = pooled.unflatten(2, (len(query), -1)).diagonal(dim1=1, dim2=2)  # B, C/G, G
    return heads.mT.flatten(1).to(x.dtype), weights


def _asked(query: Tensor, values: Tensor) -> Tensor:
    scaled = query.to(values.dtype) * query.shape[1] ** -0.5
    return scaled.expand(len(values), -1, -1)


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, query: Tensor) -> Tensor:
        pooled, weights = _pool(x, query)
        ctx.save_for_backward(x, query, weights)
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, dy: Tensor) -> tuple[Tensor, Tensor]:
        x, query, weights = ctx.saved_tensors
        with full_precision(x.device):
            values = x.flatten(2).to(weights.dtype)
            own = dy.to(weights.dtype).unflatten(1, (len(query), -1))  # B, G, C/G
            dpooled = torch.diag_embed(own.mT, dim1=1, dim2=2).flatten(2)  # B, G, C
            dweights = torch.bmm(dpooled, values)
            dscores = weights * (dweights - (weights * dweights).sum(2, keepdim=True))
            left = torch.cat([dpooled, _asked(query, values)], 1)  # B, 2 G, C
            right = torch.cat([weights, dscores], 1)  # B, 2 G, H*W
            # in the layout of x, whose other gradients it is added to
            last = values.stride(1) == 1
            dx = torch.bmm(right.mT, left).mT if last else torch.bmm(left.mT, right)
            dquery = torch.bmm(dscores, values.mT).sum(0) * query.shape[1] ** -0.5
        return dx.unflatten(2, x.shape[2:]).to(x.dtype), dquery.to(query.dtype)
