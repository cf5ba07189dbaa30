"""The one vector that a global context block attends from a map (arXiv 1904.11492)."""

from torch import Tensor, nn

from attnpool_backbones.ops.attention_pool import attention_pool
from attnpool_backbones.ops.formula import operator
from attnpool_backbones.ops.fusing import may_fuse
from attnpool_backbones.ops.gradients import gradients_wanted
from attnpool_backbones.ops.precision import wide_dtype


@operator
def global_context(x: Tensor, mask: nn.Conv2d) -> Tensor:
    """Returns sum_n softmax_n(mask(x)) x_n over all positions n (arXiv 1904.11492, eq. 5).

    Args:
        x: Map B, C, H, W.
        mask: 1x1 convolution to one channel.

    Returns:
        B, C, 1, 1.
    """
    weights = mask(x).flatten(2).softmax(-1)  # B, 1, H*W
    return (weights @ x.flatten(2).mT).mT[..., None]


@global_context.fast
def _(x: Tensor, mask: nn.Conv2d) -> Tensor:
    # One backward pass for both products with the map. At inference the convolution reads it faster
    # than a product; in short types the pool would widen it first.
    fuses = may_fuse(mask) and x.dtype == wide_dtype(x.dtype) == mask.weight.dtype
    if not (fuses and gradients_wanted(x, *mask.parameters())):
        return global_context.formula(x, mask)
    # The pool divides by the root; a bias shifts all scores alike, so its gradient is 0.
    query = mask.weight.flatten(1) * x.shape[1] ** 0.5  # 1, C
    context = attention_pool(x, query, (1, 1))
    return context if mask.bias is None else context + 0 * mask.bias
