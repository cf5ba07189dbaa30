"""Pooling of a map into bins by learned weights, where an average has none."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn import functional

from attnpool_backbones.ops.compiling import is_recorded
from attnpool_backbones.ops.formula import operator
from attnpool_backbones.ops.gradients import gradients_wanted, once_differentiable
from attnpool_backbones.ops.precision import full_precision, wide_dtype

FEW_ROWS = 64
"""Bins of all heads up to which one product writes the gradient of a map."""
IN_CACHE = 1 << 22
"""Values of a map up to which a product is faster with few long rows than with many short ones."""


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


@operator
def map_and_pool(x: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
    """Returns a map as it is and its :func:`attention_pool` to one bin.

    For a gate, whose map has two gradients: the pool's is written into that of the returned map, in
    place of a map of its own. That one has to be fresh, as the gradient of a factor is; that of a
    summand belongs to the other summand, too.

    Args:
        x: Map B, C, H, W.
        query: Of each head, G, C; head g weighs the g-th C / G channels.

    Returns:
        The map B, C, H, W and B, C, 1, 1.
    """
    return x, attention_pool(x, query, (1, 1))


@attention_pool.fast
def _(x: Tensor, query: Tensor, bins: tuple[int, int]) -> Tensor:
    if gradients_wanted(x, query) and not is_recorded():
        return _Pool.apply(x, query, tuple(bins), False)
    return _pool(x, query, tuple(bins))[0]


@map_and_pool.fast(compiled=False)
def _(x: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
    if gradients_wanted(x, query):
        return _Pool.apply(x, query, (1, 1), True)
    return x, attention_pool(x, query, (1, 1))


# Notation: values (B, C, N) the map, asked (B, G, C) what the heads seek, weights (B, G, K, N) of
# the K bins, 0 outside of them. Products read the map as it lies, in either layout, and nothing of
# its size is kept but the map itself.


def _pool(x: Tensor, query: Tensor, bins: tuple[int, int]) -> tuple[Tensor, ...]:
    """Returns the pooled map B, C, rows, columns, what is asked and the weights."""
    with full_precision(x.device):
        values = x.flatten(2).to(wide_dtype(x.dtype))
        asked = (query.to(values.dtype) * query.shape[1] ** -0.5).expand(x.shape[0], -1, -1)
        weights = _sought(asked, values)[:, :, None]  # B, G, 1, N
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
    return pooled.unflatten(2, bins).to(x.dtype), asked, weights


def _reads_all(values: Tensor, weights: Tensor) -> bool:
    """Tells whether a head pools all channels, of which it keeps its own.

    A few operations more a value, but one product whose rows are long where channels lie together.
    """
    heads, bins = weights.shape[1:3]
    return values.stride(1) == 1 and bins == 1 and heads <= FEW_ROWS


def _sought(asked: Tensor, values: Tensor) -> Tensor:
    """Returns the products B, G, N of what each head seeks, B, G, C, with all positions."""
    if values.stride(1) == 1 and values.numel() > IN_CACHE:
        return torch.bmm(values.mT, asked.mT).mT
    return torch.bmm(asked, values)


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
    def forward(
        ctx: FunctionCtx, x: Tensor, query: Tensor, bins: tuple[int, int], with_map: bool
    ) -> Tensor | tuple[Tensor, Tensor]:
        pooled, asked, weights = _pool(x, query, bins)
        ctx.save_for_backward(x, query, asked, weights)
        return (x, pooled) if with_map else pooled

    @staticmethod
    @once_differentiable
    def backward(
        ctx: FunctionCtx, saved: tuple[Tensor, ...], *gradients: Tensor
    ) -> tuple[Tensor | None, ...]:
        *begun, dy = gradients  # that of the map, if it was returned
        x, query, asked, weights = saved
        heads, bins = weights.shape[1:3]
        with full_precision(x.device):
            values = x.flatten(2).to(weights.dtype)
            # B, G, C/G, K
            dpooled = dy.to(weights.dtype).flatten(2).unflatten(1, (heads, -1))
            spread = _spread(dpooled) if heads * bins <= FEW_ROWS else None
            if _reads_all(values, weights):
                dweights = _sought(spread, values)[:, :, None]  # B, G, 1, N
            else:
                own = zip(dpooled.unbind(1), values.chunk(heads, 1), strict=True)
                dweights = torch.stack([torch.bmm(d.mT, part) for d, part in own], 1)  # B, G, K, N
            dscores = torch.ops.aten._softmax_backward_data(dweights, weights, 3, weights.dtype)
            dscores = dscores.sum(2) if bins > 1 else dscores[:, :, 0]  # B, G, N
            if spread is None:
                dx = torch.empty_like(values)
                sought, parts = asked.mT.chunk(heads, 1), dx.chunk(heads, 1)
                ways = zip(dpooled.unbind(1), sought, weights.unbind(1), parts, strict=True)
                for d, a, w, part in ways:
                    torch.bmm(torch.cat([d, a], 2), torch.cat([w, dscores], 1), out=part)
                for gradient in begun:
                    dx += gradient.flatten(2)
            else:  # one product writes all, though it multiplies by zeros for the other heads
                left = torch.cat([spread, asked], 1)  # B, G K + G, C
                right = torch.cat([weights.flatten(1, 2), dscores], 1)  # B, G K + G, N
                dx = _outer(left, right, values, *begun)
            dquery = torch.bmm(dscores, values.mT).sum(0) * asked.shape[2] ** -0.5
        dx = dx.unflatten(2, x.shape[2:]).to(x.dtype)
        return dx, dquery.to(query.dtype), None, None


def _outer(left: Tensor, right: Tensor, values: Tensor, begun: Tensor | None = None) -> Tensor:
    """Returns left^T right, B, C, N, in the layout of the values.

    Args:
        left: B, R, C.
        right: B, R, N.
        values: B, C, N, whose other gradients it is added to.
        begun: One of these, B, C, H, W; it is added to in place. Default: none.
    """
    last = values.stride(1) == 1
    if begun is None:
        return torch.bmm(right.mT, left).mT if last else torch.bmm(left.mT, right)
    dx = begun.flatten(2).to(values.dtype)  # a copy only in another type or a strange layout
    if dx.stride(1) == 1:
        dx.mT.baddbmm_(right.mT, left)
    else:
        dx.baddbmm_(left.mT, right)
    return dx


def _spread(dpooled: Tensor) -> Tensor:
    """Returns gradients B, G K, C of what each head and bin has of all channels: 0 of others'."""
    own = torch.eye(dpooled.shape[1], dtype=dpooled.dtype, device=dpooled.device)
    spread = dpooled.permute(0, 3, 1, 2)[:, None] * own[:, None, :, None]  # B, G, K, G, C/G
    return spread.flatten(3).flatten(1, 2)
