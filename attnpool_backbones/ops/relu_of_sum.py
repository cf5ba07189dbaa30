"""The end of a residual block on a map that nobody else reads, in one pass."""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn import functional as F

from attnpool_backbones.ops.gradients import gradients_wanted


def relu_of_sum_(x: Tensor, shortcut: Tensor) -> Tensor:
    """Returns max(x + shortcut, 0) in the memory of ``x``.

    Args:
        x: A map whose values no backward pass needs, as convolutions and norms return them.
        shortcut: Map like ``x``.
    """
    alike = x.dtype == shortcut.dtype == torch.float32 and x.shape == shortcut.shape
    # Compilers fuse by themselves; traced graphs are for runtimes that know no operator for both.
    watched = torch.compiler.is_compiling() or torch.jit.is_tracing()
    if not alike or x.device.type != 'cpu' or watched:
        x += shortcut
        return F.relu_(x)
    if gradients_wanted(x, shortcut):
        return _ReluOfSum.apply(x, shortcut)
    return torch.ops.aten._add_relu_(x, shortcut)


class _ReluOfSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, shortcut: Tensor) -> Tensor:
        torch.ops.aten._add_relu_(x, shortcut)
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: FunctionCtx, dy: Tensor) -> tuple[Tensor, Tensor]:
        (y,) = ctx.saved_tensors
        dx = torch.ops.aten.threshold_backward(dy, y, 0)
        return dx, dx
