"""Softmax attention (arXiv 1706.03762)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from attnpool_backbones.ops.bfloat16_attention import attend_by_batches, multiplies_batches
from attnpool_backbones.ops.formula import operator
from attnpool_backbones.ops.onednn import may_call_onednn, onednn_product
from attnpool_backbones.ops.product import multiplies_heads, outruns_fused_attention


def attention_maps(q: Tensor, k: Tensor, bias: Tensor | None = None) -> Tensor:
    """Returns softmax(q k^T / sqrt(d) + bias), B, H, T, N (arXiv 1706.03762, eq. 1).

    Args:
        q: Queries B, H, T, d.
        k: Keys B, H, N, d.
        bias: H, T, N. Default: none.
    """
    scores = (q * q.shape[-1] ** -0.5) @ k.mT  # B, H, T, N
    return (scores if bias is None else scores + bias).softmax(-1)


@operator
def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Returns softmax(q k^T / sqrt(d)) v (arXiv 1706.03762, eq. 1), B, H, T, d.

    Args:
        q: Queries B, H, T, d.
        k: Keys B, H, N, d.
        v: Values B, H, N, d.
    """
    return attention_maps(q, k) @ v  # B, H, T, d


CHUNK_ELEMENTS = 2**20
"""Values of a map that are held at a time where oneDNN computes the products of each head."""


@attention.fast(traced=False)
def _(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    # By oneDNN only where nobody watches, for that is slower to train than torch's operator.
    if not torch.compiler.is_compiling() and may_call_onednn(q, k, v):
        if multiplies_batches(q, k, v):
            out = empty_output(q, v)
            attend_by_batches(out, q, k, v)
            return out
        by_heads = not torch.is_autocast_enabled('cpu') and multiplies_heads(q, k)
        if by_heads and outruns_fused_attention():
            return _attend_by_heads(q, k, v)
    return F.scaled_dot_product_attention(q, k, v)


def empty_output(q: Tensor, v: Tensor) -> Tensor:
    """Returns memory B, H, T, d for what queries get of values, heads next to the channels in it.

    A projection of tokens follows, which takes it as it lies.

    Args:
        q: Queries B, H, T, any.
        v: Values B, H, N, d.
    """
    return v.new_empty(q.shape[0], q.shape[2], q.shape[1], v.shape[3]).transpose(1, 2)


def _attend_by_heads(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    out = empty_output(q, v)
    q = q * q.shape[-1] ** -0.5
    rows = max(1, CHUNK_ELEMENTS // k.shape[2])
    for index, queries in enumerate(q.flatten(0, 1)):
        head = divmod(index, q.shape[1])
        keys, values = k[head].contiguous(), v[head].mT.contiguous()
        for part, result in zip(queries.split(rows), out[head].split(rows), strict=True):
            maps = onednn_product(part, keys)
            result.copy_(onednn_product(torch.softmax(maps, -1, out=maps), values))
    return out
