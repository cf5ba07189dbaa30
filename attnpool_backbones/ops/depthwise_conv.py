"""Depthwise convolution whose weight gradient is fast on a CPU."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from attnpool_backbones.ops.compiling import compiler_fuses, is_recorded
from attnpool_backbones.ops.formula import operator
from attnpool_backbones.ops.layout import contiguous_copy
from attnpool_backbones.ops.own_operator import own_operator
from attnpool_backbones.ops.precision import wide_dtype


@operator
def depthwise_conv(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Returns the convolution of each channel with a kernel of its own (arXiv 1704.04861).

    On a CPU, torch's weight gradient of kernels from 5x5 on runs in unoptimised code and takes 3
    to 5 times as long as :func:`depthwise_weight_grad`, which is used there.

    Args:
        x: Map B, C, H, W.
        weight: Kernels C, 1, K, K; K is odd.
        bias: C. Default: none.

    Returns:
        Map B, C, H, W; outside of ``x`` are zeros.
    """
    return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=len(weight))


TILE = 8
"""Columns of a gradient map that are multiplied with their window of the input at a time."""


def depthwise_weight_grad(x: Tensor, grad: Tensor, kernel_size: int) -> Tensor:
    """Computes the weight gradient of a depthwise convolution by matrix products.

    Each row of the gradient is cut into tiles of :data:`TILE` columns and each row of the input
    into the windows that these see. The products of tiles and windows, summed over tiles, rows and
    samples, hold the gradient of a kernel row on their diagonals.

    Args:
        x: Input of the convolution (stride 1, padding ``kernel_size // 2``), B, C, H, W.
        grad: Gradient of its output, B, C, H, W.
        kernel_size: Odd side K of the square kernel.

    Returns:
        Gradient of the weight, C, 1, K, K.
    """
    batch, channels, height, width = x.shape
    pad = kernel_size // 2
    tiles = -(-width // TILE)
    extra = tiles * TILE - width
    window = TILE + 2 * pad

    x = F.pad(_contiguous(x), (pad, pad + extra, pad, pad))
    x = x.unfold(3, window, TILE).flatten(0, 1).flatten(1, 2)
    # A map of one position passes for channels_last, and the padded one is.
    grad = F.pad(_contiguous(grad), (0, extra)).reshape(batch * channels, height * tiles, TILE)
    rows = [
        # B * C, TILE, window; windows of kernel row i begin i rows further down.
        torch.bmm(grad.transpose(1, 2), x[:, i * tiles : (i + height) * tiles])
        for i in range(kernel_size)
    ]
    products = torch.stack(rows, dim=1)  # B * C, K, TILE, window
    steps = products.stride()
    diagonals = products.as_strided(
        (batch * channels, kernel_size, kernel_size, TILE),
        (steps[0], steps[1], steps[3], steps[2] + steps[3]),
    )
    return diagonals.sum(-1).view(batch, channels, 1, kernel_size, kernel_size).sum(0)


# The compiler would lay windows and tiles out so that each product copies both.
_compiled_weight_grad = own_operator('depthwise_weight_gradient')(depthwise_weight_grad)


@_compiled_weight_grad.register_fake
def _(x: Tensor, grad: Tensor, kernel_size: int) -> Tensor:
    return x.new_empty(x.shape[1], 1, kernel_size, kernel_size)


def _contiguous(x: Tensor) -> Tensor:
    if x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last):
        return x.contiguous()
    return contiguous_copy(x)


class _DepthwiseConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        pad = weight.shape[-1] // 2
        # twice, for the tracer of torch 2.6 loses a single number that it has traced
        return F.conv2d(x, weight, padding=(pad, pad), groups=len(weight))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            # Stride 1 and same padding: the transposed convolution is the one with the kernel
            # turned by 180 degrees.
            flipped = weight.flip(-2, -1).to(grad.dtype)
            grad_x = F.conv2d(grad, flipped, padding=weight.shape[-1] // 2, groups=len(weight))
        if ctx.needs_input_grad[1]:
            exact = wide_dtype(weight.dtype)
            compiling = torch.compiler.is_compiling()
            compute = _compiled_weight_grad if compiling else depthwise_weight_grad
            grad_weight = compute(x.to(exact), grad.to(exact), weight.shape[-1])
            grad_weight = grad_weight.to(weight.dtype)
        return grad_x, grad_weight


@depthwise_conv.fast
def _(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if compiler_fuses():
        # The same memory as channels_last, see pointwise_kernel.
        weight = weight.squeeze(1).unsqueeze(-1).movedim(-1, 1)
    if x.device.type != 'cpu' or weight.shape[-1] < 5 or not weight.requires_grad:
        return depthwise_conv.formula(x, weight, bias)
    if is_recorded() and not compiler_fuses():  # the export of torch 2.6 reads no strides there
        return depthwise_conv.formula(x, weight, bias)
    y = _DepthwiseConv.apply(x, weight)
    return y if bias is None else y + bias.view(-1, 1, 1)
