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
    # Keeps one map for the backward pass, like ReLU alone. It is an output, as what is saved of
    # neither inputs nor outputs has no second derivatives.
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        root = F.relu(x)
        ctx.save_for_backward(root)
        ctx.set_materialize_grads(False)
        return root * root, root

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, grad_of_root: Tensor | None) -> Tensor | None:
        (root,) = ctx.saved_tensors
        if grad_of_root is None:
            if grad is None:
                return None
            # 2 * grad * root in a single pass.
            return torch.addcmul(grad.new_zeros(()), grad, root, value=2)
        # in a second backward pass only
        grad_of_root = grad_of_root * (root > 0)
        return grad_of_root if grad is None else grad_of_root + 2 * grad * root


@squared_relu.fast(compiled=False)
def _(x: Tensor) -> Tensor:
    if gradients_wanted(x):
        return _SquaredReLU.apply(x)[0]
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
