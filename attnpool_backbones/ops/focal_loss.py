"""Focal loss (RetinaNet, arXiv 1708.02002, eq. 5) as mmcv defines it."""

from typing import Any

import torch
from torch import Tensor

from attnpool_backbones.ops.formula import operator
from attnpool_backbones.ops.gradients import once_differentiable
from attnpool_backbones.ops.precision import converted, wide_dtype

LEAST = torch.finfo(torch.float32).tiny  # of less no logarithm or power is taken


@operator
def sigmoid_focal_loss(
    logits: Tensor,
    target: Tensor,
    gamma: float = 2.0,
    alpha: float = 0.25,
    weight: Tensor | None = None,
) -> Tensor:
    """Returns the loss of each class taken as a yes-or-no question, N, C.

    -alpha (1 - p)^gamma log p for the right class, -(1 - alpha) p^gamma log(1 - p) for all others,
    with p = sigmoid(logit).

    Args:
        logits: N, C.
        target: N, int64: the right class; C where none is.
        gamma: How much less easy examples count. Default: 2.0.
        alpha: Share of the right class. Default: 0.25.
        weight: C: factor of the rows of each class, where all rows have one. Default: 1.
    """
    p = logits.to(wide_dtype(logits.dtype)).sigmoid()
    right = -alpha * (1 - p) ** gamma * p.clamp(min=LEAST).log()
    wrong = -(1 - alpha) * p**gamma * (1 - p).clamp(min=LEAST).log()
    loss = torch.where(_is_right(target, logits.shape[1]), right, wrong)
    loss = loss if weight is None else loss * weight[target].unsqueeze(1)
    return converted(loss, logits.dtype)


@operator
def softmax_focal_loss(
    logits: Tensor,
    target: Tensor,
    gamma: float = 2.0,
    alpha: float = 0.25,
    weight: Tensor | None = None,
) -> Tensor:
    """Returns -alpha (1 - p)^gamma log p with p the softmax of the right class, N.

    Args:
        logits: N, C.
        target: N, int64: the right class; rows below 0 cost nothing.
        gamma: How much less easy examples count. Default: 2.0.
        alpha: Factor of all losses. Default: 0.25.
        weight: C: factor of the rows of each class. Default: 1.
    """
    probabilities = logits.softmax(1, dtype=wide_dtype(logits.dtype))
    return converted(softmax_loss(probabilities, target, gamma, alpha, weight), logits.dtype)


@sigmoid_focal_loss.fast
def _(
    logits: Tensor,
    target: Tensor,
    gamma: float = 2.0,
    alpha: float = 0.25,
    weight: Tensor | None = None,
) -> Tensor:
    return _SigmoidLoss.apply(logits, target, gamma, alpha, weight)


@softmax_focal_loss.fast
def _(
    logits: Tensor,
    target: Tensor,
    gamma: float = 2.0,
    alpha: float = 0.25,
    weight: Tensor | None = None,
) -> Tensor:
    return _SoftmaxLoss.apply(logits, target, gamma, alpha, weight)


class _SigmoidLoss(torch.autograd.Function):
    # Keeps the logits alone, and has mmcv's gradient where the logarithm is cut off.
    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, *factors: Any) -> Tensor:
        ctx.save_for_backward(logits, target)
        ctx.factors = factors
        return sigmoid_focal_loss.formula(logits, target, *factors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, saved: tuple[Tensor, Tensor], grad: Tensor) -> tuple:
        return grad * sigmoid_gradient(*saved, *ctx.factors), *[None] * 4


class _SoftmaxLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, *factors: Any) -> Tensor:
        ctx.save_for_backward(logits, target)
        ctx.factors = factors
        return softmax_focal_loss.formula(logits, target, *factors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, saved: tuple[Tensor, Tensor], grad: Tensor) -> tuple:
        logits, target = saved
        probabilities = logits.softmax(1, dtype=wide_dtype(logits.dtype))
        gradient = softmax_gradient(probabilities, target, *ctx.factors)
        return (grad.unsqueeze(1) * gradient).to(grad.dtype), *[None] * 4


def sigmoid_gradient(
    logits: Tensor, target: Tensor, gamma: float, alpha: float, weight: Tensor | None
) -> Tensor:
    """Returns the derivative of :func:`sigmoid_focal_loss` by each logit, N, C."""
    p = logits.to(wide_dtype(logits.dtype)).sigmoid()
    q = 1 - p
    right = -alpha * q**gamma * (q - gamma * p * p.clamp(min=LEAST).log())
    wrong = -(1 - alpha) * p**gamma * (gamma * q * q.clamp(min=LEAST).log() - p)
    gradient = torch.where(_is_right(target, logits.shape[1]), right, wrong)
    gradient = gradient if weight is None else gradient * weight[target].unsqueeze(1)
    return gradient.to(logits.dtype)


def softmax_loss(
    probabilities: Tensor, target: Tensor, gamma: float, alpha: float, weight: Tensor | None
) -> Tensor:
    """Returns :func:`softmax_focal_loss` of probabilities, N."""
    index = target.clamp(min=0)
    p = probabilities.gather(1, index.unsqueeze(1)).squeeze(1)
    p = p.to(wide_dtype(p.dtype))
    q = (1 - p).clamp(min=LEAST)
    loss = -alpha * q**gamma * p.clamp(min=LEAST).log() * (target >= 0)
    return loss if weight is None else loss * weight[index]


def softmax_gradient(
    probabilities: Tensor, target: Tensor, gamma: float, alpha: float, weight: Tensor | None
) -> Tensor:
    """Returns the derivative of :func:`softmax_focal_loss` by each logit, N, C."""
    index = target.clamp(min=0)
    p = probabilities.gather(1, index.unsqueeze(1)).squeeze(1)
    p = p.to(wide_dtype(p.dtype))
    q = (1 - p).clamp(min=LEAST)
    slope = alpha * (gamma * q ** (gamma - 1) * p * p.clamp(min=LEAST).log() - q**gamma)
    slope = slope * (target >= 0)
    slope = slope if weight is None else slope * weight[index]
    right = _is_right(target, probabilities.shape[1])
    return slope.unsqueeze(1) * (right.to(probabilities.dtype) - probabilities)


def _is_right(target: Tensor, classes: int) -> Tensor:
    """Tells of each row which class is right, N, C."""
    return target.unsqueeze(1) == torch.arange(classes, device=target.device)
