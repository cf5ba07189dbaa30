"""Attention of a few learned tokens to a map: what attention pooling computes (2112.13692)."""

from torch import Tensor, nn

from attnpool_backbones.ops.attention import attention_maps
from attnpool_backbones.ops.formula import operator
from attnpool_backbones.ops.fusing import may_fuse
from attnpool_backbones.ops.linear import linear


@operator
def token_attention(
    queries: Tensor, memory: Tensor, q: nn.Linear, k: nn.Linear, v: nn.Linear
) -> tuple[Tensor, Tensor]:
    """Attends from tokens to the positions of maps, with one head (arXiv 2112.13692, section 3.1).

    Args:
        queries: Tokens 1, K, C: the same for all images.
        memory: Positions B, N, C.
        q: Projection of the tokens, C to C.
        k: Projection of the positions to keys, C to C.
        v: Projection of the positions to values, C to C.

    Returns:
        The pooled values B, K, C and the weights B, K, N, whose rows sum to 1.
    """
    weights = attention_maps(q(queries)[:, None], k(memory)[:, None])[:, 0]  # B, K, N
    return weights @ v(memory), weights


@token_attention.fast
def _(
    queries: Tensor, memory: Tensor, q: nn.Linear, k: nn.Linear, v: nn.Linear
) -> tuple[Tensor, Tensor]:
    if queries.shape[1] >= memory.shape[1] or not may_fuse(k, v):
        return token_attention.formula(queries, memory, q, k, v)
    # q (W n)^T = (q W) n^T, and rows that sum to 1 commute with v: K tokens are projected in place
    # of N positions, so that what is left of the cost is two thin products with the map.
    asked = linear(queries, q) * queries.shape[-1] ** -0.5  # 1, K, C
    scores = memory @ (asked @ k.weight)[0].T  # B, N, K
    if k.bias is not None:
        scores = scores + asked[0] @ k.bias
    weights = scores.softmax(1).mT  # B, K, N
    return linear(weights @ memory, v), weights
