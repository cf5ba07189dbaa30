"""Attention of a few learned tokens to a map: what attention pooling computes (2112.13692)."""

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from attnpool_backbones.ops.attention import attention_maps
from attnpool_backbones.ops.compiling import is_recorded
from attnpool_backbones.ops.formula import operator
from attnpool_backbones.ops.fusing import may_fuse
from attnpool_backbones.ops.gradients import gradients_wanted, once_differentiable
from attnpool_backbones.ops.linear import linear
from attnpool_backbones.ops.precision import full_precision, wide_dtype


@operator
def token_attention(
    tokens: Tensor,
    x: Tensor,
    norm: nn.LayerNorm,
    q: nn.Linear,
    k: nn.Linear,
    v: nn.Linear,
    among_tokens: bool = False,
) -> tuple[Tensor, Tensor]:
    """Attends from tokens to the positions of maps, with one head (arXiv 2112.13692, section 3.1).

    Args:
        tokens: 1, K, C: the same for all images.
        x: Map B, C, H, W.
        norm: Of tokens and positions, over the channels.
        q: Projection of the tokens, C to C.
        k: Projection to keys, C to C.
        v: Projection to values, C to C.
        among_tokens: Whether the tokens are keys and values, too, before those of the map.

    Returns:
        The pooled values B, K, C and the weights B, K, N, whose rows sum to 1; N = H*W, or K + H*W.
    """
    queries, memory = norm(tokens), norm(x.flatten(2).mT)  # 1, K, C and B, H*W, C
    if among_tokens:
        memory = torch.cat([queries.expand(x.shape[0], -1, -1), memory], dim=1)  # B, K + H*W, C
    weights = attention_maps(q(queries)[:, None], k(memory)[:, None])[:, 0]  # B, K, N
    return weights @ v(memory), weights


@token_attention.fast
def _(
    tokens: Tensor,
    x: Tensor,
    norm: nn.LayerNorm,
    q: nn.Linear,
    k: nn.Linear,
    v: nn.Linear,
    among_tokens: bool = False,
) -> tuple[Tensor, Tensor]:
    few = tokens.shape[1] < x.shape[2] * x.shape[3]
    if not few or not may_fuse(norm, k, v) or norm.bias is None:
        return token_attention.formula(tokens, x, norm, q, k, v, among_tokens)
    # q (W n)^T = (q W) n^T, and rows that sum to 1 commute with v: K tokens are projected in place
    # of H*W positions. The norm's scale and shift go to the tokens' side, too, so that what is left
    # of the cost are a few thin products with the map as it lies.
    queries = norm(tokens)  # 1, K, C
    asked = linear(queries, q) * tokens.shape[-1] ** -0.5  # 1, K, C
    sought = asked @ k.weight  # 1, K, C
    own = sought @ queries.mT if among_tokens else None  # 1, K, K
    offset = sought @ norm.bias  # 1, K
    if k.bias is not None:
        shift = asked @ k.bias  # 1, K
        offset = offset + shift
        own = None if own is None else own + shift[..., None]
    given = (x.flatten(2), sought * norm.weight, offset[..., None], own, norm.eps)
    if gradients_wanted(*given[:-1]) and not is_recorded():
        pooled, weights = _Attend.apply(*given)
    else:
        pooled, weights = _attend(*given)[:2]
    if own is None:  # the weights of the map sum to 1
        return linear(torch.addcmul(norm.bias, pooled, norm.weight), v), weights
    first, rest = weights.split([own.shape[2], x.shape[2] * x.shape[3]], dim=2)
    pooled = pooled * norm.weight + rest.sum(2, keepdim=True) * norm.bias + first @ queries
    return linear(pooled, v), weights


# Notation: x (B, C, N) the map, m (B, 1, N) its mean over the channels, r (B, 1, N) one over its
# deviation, so that r (x - m) is the norm's result; a (B, K, C) what the tokens seek, less its mean
# over the channels, so that a (x - m) = a x; s = r a x; w, the softmax of (own, s + offset);
# p = (w r) (x - m)^T, whose mean over the channels is 0. Nothing of the map's size is kept.


def _attend(
    x: Tensor, a: Tensor, offset: Tensor, own: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns p and w in the type of x, and r."""
    dtype = x.dtype
    with full_precision(x.device):
        x, a, offset = (t.to(wide_dtype(dtype)) for t in (x, a, offset))
        # not the mean square less the squared mean, which is nothing for maps far from 0
        off = x - x.mean(1, keepdim=True)
        # fresh memory of the map's size costs more than its values do
        squares = off.square() if off.requires_grad else off.square_()
        r = (squares.mean(1, keepdim=True) + eps).rsqrt()
        del off, squares
        # matmul would copy the map where one left factor is for all images
        scores = torch.bmm(_centred(a).expand(x.shape[0], -1, -1), x) * r + offset
        if own is not None:
            scores = torch.cat([own.to(scores.dtype).expand(x.shape[0], -1, -1), scores], 2)
        w = scores.softmax(2)
        p = _centred(torch.bmm(w[..., -x.shape[2] :] * r, x.mT))
    return p.to(dtype), w.to(dtype), r


def _centred(values: Tensor) -> Tensor:
    """Returns values B, K, C less their mean over the channels."""
    return values - values.mean(2, keepdim=True)


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, a: Tensor, offset: Tensor, own: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor]:
        p, w, r = _attend(x, a, offset, own, eps)
        ctx.own_dtype, ctx.offset_dtype = None if own is None else own.dtype, offset.dtype
        ctx.save_for_backward(x, a, w, r)
        return p, w

    @staticmethod
    @once_differentiable
    def backward(
        ctx: FunctionCtx, saved: tuple[Tensor, ...], dp: Tensor, dw: Tensor
    ) -> tuple[Tensor | None, ...]:
        given, a, w, r = saved
        (batch, channels, positions), tokens = given.shape, a.shape[1]
        with full_precision(r.device):
            x, w, dp, dw = (t.to(r.dtype) for t in (given, w, dp, dw))
            sought = _centred(a.to(r.dtype)).expand(batch, -1, -1)
            mean = sought.new_full((batch, 1, channels), 1 / channels)
            left = torch.cat([_centred(dp), sought, mean], 1)  # B, 2 K + 1, C
            # of w, by p, and s; both are computed anew to keep no more than the formula does
            products = torch.bmm(left, x)
            m = products[:, -1:]
            products = products[:, :-1] * r
            over_map = w[..., -positions:]
            by_map = products[:, :tokens] + dw[..., -positions:]
            total = (over_map * by_map).sum(2, keepdim=True)
            down = None
            if ctx.own_dtype is not None:
                first, by_own = w[..., :-positions], dw[..., :-positions]
                total = total + (first * by_own).sum(2, keepdim=True)
                down = (first * (by_own - total)).sum(0, keepdim=True).to(ctx.own_dtype)
            ds = over_map * (by_map - total)
            right = torch.cat([over_map, ds], 1)  # B, 2 K, N
            dr = (products * right).sum(1, keepdim=True)  # of r, times r
            right = torch.cat([right * r, m * dr * r * r], 1)  # B, 2 K + 1, N
            # in the layout of x, to whose other gradients it is added
            last = x.stride(1) == 1
            dx = torch.bmm(right.mT, left).mT if last else torch.bmm(left.mT, right)
            dx.addcmul_(x, dr * r * r, value=-1 / channels)
            da = torch.bmm(right[:, tokens:-1], x.mT).sum(0, keepdim=True)
            doffset = ds.sum((0, 2)).view(1, -1, 1).to(ctx.offset_dtype)
        return dx.to(given.dtype), _centred(da).to(a.dtype), doffset, down, None
