"""PoolFormer's token mixing (arXiv 2111.11418)."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from attnpool_backbones.ops.formula import operator


@operator
def pool_minus_identity(x: Tensor, size: int) -> Tensor:
    """Returns the average over a window minus the position itself (arXiv 2111.11418, eq. 4).

    Args:
        x: Map B, C, H, W. Positions outside of it do not count.
        size: Odd side of the window.
    """
    return F.avg_pool2d(x, size, 1, size // 2, count_include_pad=False) - x  # B, C, H, W


class _PoolMinusIdentity(torch.autograd.Function):
    # Linear in x, so nothing has to be kept for the backward pass.
    @staticmethod
    def forward(ctx: Any, x: Tensor, size: int) -> Tensor:
        ctx.size = size
        pooled = F.avg_pool2d(x, size, stride=1, padding=size // 2, count_include_pad=False)
        return pooled.sub_(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        size, pad = [ctx.size] * 2, [ctx.size // 2] * 2
        # The second argument stands for x, of which only shape and layout matter.
        spread = torch.ops.aten.avg_pool2d_backward(
            grad, grad, size, [1, 1], pad, False, False, None
        )
        return spread - grad, None


@pool_minus_identity.fast(compiled=False)
def _(x: Tensor, size: int) -> Tensor:
    return _PoolMinusIdentity.apply(x, size)
