"""Depthwise convolution whose weight gradient is fast on a CPU."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnpool_backbones.layers.full_precision import wide_dtype

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
    x = x.unfold(3, window, TILE).reshape(batch * channels, -1, window)
    grad = F.pad(_contiguous(grad), (0, extra)).view(batch * channels, height * tiles, TILE)
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


def _contiguous(x: Tensor) -> Tensor:
    if x.is_contiguous():
        return x
    # Sample by sample, because torch has a fast copy for the transposition of matrices only.
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    for source, target in zip(x, y, strict=True):
        target.flatten(1).copy_(source.permute(1, 2, 0).reshape(-1, x.shape[1]).t())
    return y


class _DepthwiseConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=len(weight))

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
            grad_weight = depthwise_weight_grad(x.to(exact), grad.to(exact), weight.shape[-1])
            grad_weight = grad_weight.to(weight.dtype)
        return grad_x, grad_weight


class DepthwiseConv2d(nn.Conv2d):
    """Depthwise convolution of stride 1 that keeps the size of the map.

    On a CPU, torch's weight gradient of kernels from 5x5 on runs in unoptimised code and takes 3
    to 5 times as long as :func:`depthwise_weight_grad`, which is used there.

    Args:
        channels: Channels C of the map.
        kernel_size: Odd side of the square kernel.
        bias: Whether there is a bias.
    """

    def __init__(self, channels: int, kernel_size: int, bias: bool = True):
        super().__init__(
            channels, channels, kernel_size, padding=kernel_size // 2, groups=channels, bias=bias
        )

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != 'cpu' or self.kernel_size[0] < 5 or not self.weight.requires_grad:
            return super().forward(x)
        y = _DepthwiseConv.apply(x, self.weight)
        return y if self.bias is None else y + self.bias.view(-1, 1, 1)
