"""Softmax attention (arXiv 1706.03762)."""

from torch import Tensor
from torch.nn import functional as F

from attnpool_backbones.ops.formula import operator


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


@attention.fast
def _(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v)
