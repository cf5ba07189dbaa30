"""Pooling of a map into bins by learned weights, where an average has none."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional

from attnpool_backbones.ops.formula import operator
from attnpool_backbones.ops.gradients import gradients_wanted
from attnpool_backbones.ops.precision import full_precision, wide_dtype

FEW_ROWS = 64
"""Bins of all heads up to which one product writes the gradient of a map."""


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
    if gradients_wanted(x, query) and not torch.compiler.is_compiling():
        return _Pool.apply(x, query, tuple(bins))
    return _pool(x, query, tuple(bins))[0]


# Notation: values (B, C, N) the map, asked (B, G, C) what the heads seek, weights (B, G, K, N) of
# the K bins, 0 outside of them. Products read the map as it lies, in either layout, and nothing of
# its size is kept but the map itself.


def _pool(x: Tensor, query: Tensor, bins: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Returns the pooled map B, C, rows, columns and the weights, at least float32."""
    with full_precision(x.device):
        values = x.flatten(2).to(wide_dtype(x.dtype))
        weights = torch.bmm(_asked(query, values), values)[:, :, None]  # B, G, 1, N
        if bins != (1, 1):
            weights = weights.masked_fill(_outside(x.shape[2:], bins, x.device), float('-inf'))
        weights = weights.softmax(3)
        if _reads_all(values, weights):
            pooled = torch.bmm(weights[:, :, 0], values.mT)  # B, G, C
            pooled = pooled.unflatten(2, (len(query), -1)).diagonal(dim1=1, dim2=2)  # B, C/G, G
            pooled = pooled.mT.flatten(1)[..., None]
        else:
            heads = zip(values.chunk(len(query), 1), weights.unbind(1), strict=True)
            pooled = torch.cat([torch.bmm(own, weight.mT) for own, weight in heads], 1)  # B, C, K
    return pooled.unflatten(2, bins).to(x.dtype), weights


def _reads_all(values: Tensor, weights: Tensor) -> bool:
    """Tells whether a head pools all channels, of which it keeps its own.

    A few operations more a value, but one product whose rows are long where channels lie together.
    """
    heads, bins = weights.shape[1:3]
    return values.stride(1) == 1 and bins == 1 and heads <= FEW_ROWS


def _asked(query: Tensor, values: Tensor) -> Tensor:
    scaled = query.to(values.dtype) * query.shape[1] ** -0.5
    return scaled.expand(len(values), -1, -1)


def _outside(size: Sequence[int], bins: Sequence[int], device: torch.device) -> Tensor:
    """Returns which positions are outside of each bin: bins, positions."""
    rows, columns = (
        torch.tensor(
            [[not first <= at < last for at in range(n)] for first, last in windows(n, count)],
            device=device,
        )
        for n, count in zip(size, bins, strict=True)
    )
    return (rows[:, None, :, None] | columns[None, :, None, :]).flatten(0, 1).flatten(1)


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, query: Tensor, bins: tuple[int, int]) -> Tensor:
        pooled, weights = _pool(x, query, bins)
        ctx.save_for_backward(x, query, weights)
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, query, weights = ctx.saved_tensors
        heads, bins = weights.shape[1:3]
        with full_precision(x.device):
            values = x.flatten(2).to(weights.dtype)
            asked = _asked(query, values)
            dpooled = dy.to(weights.dtype).flatten(2).chunk(heads, 1)  # B, C/G, K each
            spread = _spread(dpooled) if heads * bins <= FEW_ROWS else None
            if _reads_all(values, weights):
                dweights = torch.bmm(spread, values)[:, :, None]  # B, G, 1, N
            else:
                own = zip(dpooled, values.chunk(heads, 1), strict=True)
                dweights = torch.stack([torch.bmm(d.mT, part) for d, part in own], 1)  # B, G, K, N
            dscores = weights * (dweights - (weights * dweights).sum(3, keepdim=True))
            dscores = dscores.sum(2)  # B, G, N
            if spread is None:
                dx = torch.empty_like(values)
                sought, parts = asked.mT.chunk(heads, 1), dx.chunk(heads, 1)
                for d, a, w, part in zip(dpooled, sought, weights.unbind(1), parts, strict=True):
                    torch.bmm(torch.cat([d, a], 2), torch.cat([w, dscores], 1), out=part)
            else:  # one product writes all, though it multiplies by zeros for the other heads
                left = torch.cat([spread, asked], 1)  # B, G K + G, C
                right = torch.cat([weights.flatten(1, 2), dscores], 1)  # B, G K + G, N
                # in the layout of x, whose other gradients it is added to
                last = values.stride(1) == 1
                dx = torch.bmm(right.mT, left).mT if last else torch.bmm(left.mT, right)
            dquery = torch.bmm(dscores, values.mT).sum(0) * query.shape[1] ** -0.5
        return dx.unflatten(2, x.shape[2:]).to(x.dtype), dquery.to(query.dtype), None


def _spread(dpooled: Sequence[Tensor]) -> Tensor:
    """Returns gradients B, G K, C of what each head and bin has of all channels: 0 of others'."""
    own = torch.stack(dpooled, 1)  # B, G, C/G, K
    spread = torch.diag_embed(own.permute(0, 3, 2, 1), dim1=1, dim2=3)  # B, G, K, G, C/G
    return spread.flatten(3).flatten(1, 2)
