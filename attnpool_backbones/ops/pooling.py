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
        size, pad = ctx.size, ctx.size // 2
        if grad.device.type != 'cpu':
            # The second argument stands for x, of which only shape and layout matter.
            spread = torch.ops.aten.avg_pool2d_backward(
                grad, grad, [size] * 2, [1, 1], [pad] * 2, False, False, None
            )
            return spread - grad, None
        # The gradient is such an average again, of gradients that count more near the border, by
        # the size of a window over its part inside. torch's own loop takes up to 8 times as long.
        weighted = grad.clone()
        for dim in (2, 3):
            _weight_border(weighted, dim, size)
        return F.avg_pool2d(weighted, size, stride=1, padding=pad).sub_(grad), None


def _weight_border(grad: Tensor, dim: int, size: int) -> None:
    """Multiplies a gradient near both ends of a dimension by the window over its part inside."""
    length, pad = grad.shape[dim], size // 2
    for position in {*range(min(pad, length)), *range(max(0, length - pad), length)}:
        inside = min(length - 1, position + pad) - max(0, position - pad) + 1
        grad.select(dim, position).mul_(size / inside)


@pool_minus_identity.fast(compiled=False)
def _(x: Tensor, size: int) -> Tensor:
    return _PoolMinusIdentity.apply(x, size)
