"""Whether a backward pass will follow, or derivatives are computed in another way."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.function import FunctionCtx


def gradients_wanted(*tensors: Tensor | None) -> bool:
    """Tells whether gradients are recorded for any of the tensors.

    Where they are not, temporary maps may be overwritten: on a CPU fresh memory costs more than the
    arithmetic.
    """
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


def is_transformed() -> bool:
    """Tells whether ``torch.func`` transforms what runs, or forward-mode derivatives are computed.

    No tensor need want gradients then. The answer for compiled code is the compiler's own affair.
    """
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def once_differentiable(backward: Callable) -> Callable:
    """Makes an ``autograd.Function`` whose ``backward`` has no derivatives refuse to give them.

    PyTorch's decorator of this name stands in the way of gradients of the results alone: through
    what was saved, second derivatives end in silence, as if they were 0. So save the inputs that
    they depend on, or results.

    Args:
        backward: Takes the context, what was saved, and the gradients.
    """

    @functools.wraps(backward)
    def differentiate(ctx: FunctionCtx, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # once: activation checkpointing gives them once
        with torch.no_grad():
            found = backward(ctx, saved, *gradients)
        if torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return found
        sources = (*gradients, *saved)
        return tuple(None if t is None else _Refusal.apply(t, *sources) for t in found)

    return differentiate


class _Refusal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, *sources: Tensor | None) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> None:
        raise RuntimeError('an operator that is differentiable once was differentiated twice')
