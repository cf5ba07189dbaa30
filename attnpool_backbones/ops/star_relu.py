"""StarReLU, the activation of the second MetaFormer paper (arXiv 2210.13452)."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from attnpool_backbones.ops.formula import operator
from attnpool_backbones.ops.gradients import gradients_wanted


@operator
def squared_relu(x: Tensor) -> Tensor:
    """Returns max(x, 0)^2 (arXiv 2109.08668) of any tensor; may overwrite it without gradients."""
    return F.relu(x) ** 2


@operator
def star_relu(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Returns scale * max(x, 0)^2 + bias (arXiv 2210.13452).

    Args:
        x: Any tensor; may be overwritten where no gradient is wanted.
        scale: Scalar, of shape 1 and of the type of ``x``.
        bias: Likewise.
    """
    return scale * F.relu(x) ** 2 + bias


class _SquaredReLU(torch.autograd.Function):
    # Keeps one map for the backward pass, like ReLU alone: x itself, for second derivatives.
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return F.relu(x).square_()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        root = F.relu(x)
        # 2 * grad * root in a single pass.
        out = None if torch.is_grad_enabled() else root
        return torch.addcmul(grad.new_zeros(()), grad, root, value=2, out=out)


@squared_relu.fast(compiled=False)
def _(x: Tensor) -> Tensor:
    if gradients_wanted(x):
        return _SquaredReLU.apply(x)
    return F.relu_(x).square_()


@star_relu.fast(compiled=False)
def _(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return torch.addcmul(bias, squared_relu(x), scale)


def absorb_star_relu(
    weight: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor]:
    """Moves scale and shift of a StarReLU into the linear layer after it.

    Args:
        weight: Of the linear layer, out x in.
        bias: Likewise, or None.
        scale: Of the StarReLU.
        shift: Of the StarReLU, its ``bias``.

    Returns:
        The weight and bias with which the linear layer, on :func:`squared_relu`, equals the
        original on :func:`star_relu`.
    """
    shift = shift * weight.sum(1)
    return weight * scale, shift if bias is None else bias + shift
