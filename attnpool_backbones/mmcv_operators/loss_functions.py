"""mmcv's functions of losses; an empty weight is none, in plain torch."""

from torch import Tensor

from attnpool_backbones.mmcv_operators.served import serve
from attnpool_backbones.ops import focal_loss


@serve
def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Writes ``output``."""
    factors = gamma, alpha, weight if len(weight) else None
    output.copy_(focal_loss.sigmoid_focal_loss(input, target, *factors))


@serve
def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Writes ``grad_input``."""
    factors = gamma, alpha, weight if len(weight) else None
    grad_input.copy_(focal_loss.sigmoid_gradient(input, target, *factors))


@serve
def softmax_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Writes ``output``; ``input`` are probabilities."""
    factors = gamma, alpha, weight if len(weight) else None
    output.copy_(focal_loss.softmax_loss(input, target, *factors))


@serve
def softmax_focal_loss_backward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    buff: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Writes ``grad_input``; ``input`` are probabilities, ``buff`` is room that is not needed."""
    factors = gamma, alpha, weight if len(weight) else None
    grad_input.copy_(focal_loss.softmax_gradient(input, target, *factors))
