"""Attention of a few learned tokens to a map: what attention pooling computes (2112.13692)."""

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from attnpool_backbones.ops.attention import attention_maps
from attnpool_backbones.ops.formula import operator
from attnpool_backbones.ops.fusing import may_fuse
from attnpool_backbones.ops.gradients import gradients_wanted
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
        memory = torch.cat([queries.expand(len(x), -1, -1), memory], dim=1)  # B, K + H*W, C
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
    if not few or norm.bias is None or not may_fuse(norm, k, v):
        return token_attention.formula(tokens, x, norm, q, k, v, among_tokens)
    # q (W n)^T = (q W) n^T, and rows that sum to 1 commute with v: K tokens are projected in place
    # of H*W positions. The norm's scale and shift go to the tokens' side, too, so that what is left
    # of the cost are two thin products with the map as it lies.
    queries = norm(tokens)  # 1, K, C
    asked = linear(queries, q) * tokens.shape[-1] ** -0.5  # 1, K, C
    sought = asked @ k.weight  # 1, K, C
    offset = (sought * norm.bias).sum(2, keepdim=True)  # 1, K, 1
    own = sought @ queries.mT if among_tokens else offset[..., :0]  # 1, K, K or 0
    if k.bias is not None:
        shift = (asked * k.bias).sum(2, keepdim=True)
        offset, own = offset + shift, own + shift
    given = (x.flatten(2), sought * norm.weight, offset, own, norm.eps)
    if gradients_wanted(*given[:-1]) and not torch.compiler.is_compiling():
        pooled, weights = _Attend.apply(*given)
    else:
        pooled, weights = _attend(*given)[:2]
    if not among_tokens:  # the weights of the map sum to 1
        return linear(pooled * norm.weight + norm.bias, v), weights
    first, rest = weights.split([own.shape[2], x.shape[2] * x.shape[3]], dim=2)
    pooled = pooled * norm.weight + rest.sum(2, keepdim=True) * norm.bias + first @ queries
    return linear(pooled, v), weights


# Notation: x (B, C, N) the map; c = x - its mean over the channels; r (B, 1, N) one over c's
# deviation, so that r c is the norm's result; a (B, K, C) what the tokens seek; s = r a c; w, the
# softmax of (own, s + offset); p = (w r) c^T. A map is written once each way besides c.


def _attend(
    x: Tensor, a: Tensor, offset: Tensor, own: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns p and w in the type of x, and c and r."""
    dtype = x.dtype
    with full_precision(x.device):
        x, a, offset, own = (t.to(wide_dtype(dtype)) for t in (x, a, offset, own))
        c = x - x.mean(1, keepdim=True)
        r = ((c * c).mean(1, keepdim=True) + eps).rsqrt()
        s = _scores(a, c, r)
        w = torch.cat([own.expand(len(x), -1, -1), s + offset], 2).softmax(2)
        p = torch.bmm(w[..., own.shape[2] :] * r, c.mT)
    return p.to(dtype), w.to(dtype), c, r


def _scores(a: Tensor, c: Tensor, r: Tensor) -> Tensor:
    # matmul would copy the map where one left factor is for all images
    return torch.bmm(a.expand(len(c), -1, -1), c) * r


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, a: Tensor, offset: Tensor, own: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        p, w, c, r = _attend(x, a, offset, own, eps)
        ctx.dtype = x.dtype
        ctx.save_for_backward(a, offset, own, w, c, r)
        return p, w

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, dp: Tensor, dw: Tensor) -> tuple[Tensor | None, ...]:
        a, offset, own, w, c, r = ctx.saved_tensors
        tokens = own.shape[2]
        with full_precision(c.device):
            w, dp, dw = (t.to(c.dtype) for t in (w, dp, dw))
            wide = a.to(c.dtype)
            over_map = w[..., tokens:]
            dwr = torch.bmm(dp, c)  # of w r
            dw = torch.cat([dw[..., :tokens], dw[..., tokens:] + dwr * r], 2)
            dscores = w * (dw - (w * dw).sum(2, keepdim=True))
            down, ds = dscores.split([tokens, c.shape[2]], 2)
            # of r, times r; s is computed anew to keep no more than the formula does
            dr = (dwr * over_map * r + ds * _scores(wide, c, r)).sum(1, keepdim=True)
            left = torch.cat([dp, wide.expand_as(dp)], 1)
            dx = torch.bmm(left.mT, torch.cat([over_map * r, ds * r], 1))
            dx.sub_(dx.mean(1, keepdim=True)).addcmul_(c, dr * r * r, value=-1 / c.shape[1])
            da = torch.bmm(ds * r, c.mT).sum(0, keepdim=True)
            doffset, down = ds.sum((0, 2)).view(1, -1, 1), down.sum(0, keepdim=True)
        return dx.to(ctx.dtype), da.to(a.dtype), doffset.to(offset.dtype), down.to(own.dtype), None
