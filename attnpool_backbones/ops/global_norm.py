"""Normalisation over all channels and positions of a sample (arXiv 1803.08494, one group)."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from attnpool_backbones.ops.compiling import is_recorded
from attnpool_backbones.ops.formula import operator
from attnpool_backbones.ops.gradients import once_differentiable
from attnpool_backbones.ops.group_norm import group_norm
from attnpool_backbones.ops.precision import wide_dtype


@operator
def global_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    scale: Tensor | None = None,
) -> Tensor:
    """Returns scale * (weight (x - mean) / sqrt(variance + eps) + bias).

    Args:
        x: Map B, C, H, W; mean and variance of a sample are over C, H and W.
        weight: C, or None.
        bias: C, or None.
        eps: Added to the variance.
        scale: One factor per channel, C. Default: 1.
    """
    mean = x.mean((1, 2, 3), keepdim=True)  # B, 1, 1, 1
    variance = (x - mean).square().mean((1, 2, 3), keepdim=True)
    y = (x - mean) / (variance + eps).sqrt()  # B, C, H, W
    if weight is not None:
        y = y * weight.view(-1, 1, 1)
    if bias is not None:
        y = y + bias.view(-1, 1, 1)
    return y if scale is None else y * scale.view(-1, 1, 1)


@global_norm.fast
def _(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    scale: Tensor | None = None,
) -> Tensor:
    if scale is not None:
        weight = scale if weight is None else weight * scale
        bias = None if bias is None else bias * scale
    if x.device.type != 'cuda' or is_recorded():
        return group_norm(x, 1, weight, bias, eps)
    if torch.is_autocast_enabled('cuda'):
        x = x.to(wide_dtype(x.dtype))  # as autocast does for PyTorch's own
    if x.dtype != wide_dtype(x.dtype):
        return F.group_norm(x, 1, weight, bias, eps)
    return _GlobalNorm.apply(x, weight, bias, eps)


class _GlobalNorm(torch.autograd.Function):
    # On a GPU PyTorch gives a whole sample to one block of threads and copies it before.
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> Tensor:
        variance, mean = torch.var_mean(x, (1, 2, 3), correction=0, keepdim=True)  # B, 1, 1, 1
        scale = inverse = torch.rsqrt(variance + eps)
        if weight is not None:
            scale = inverse * weight.view(-1, 1, 1)  # B, C, 1, 1
        shift = -mean * scale
        if bias is not None:
            shift = shift + bias.view(-1, 1, 1)
        ctx.save_for_backward(x, mean, inverse, weight)
        return torch.addcmul(shift, x, scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, saved: tuple[Tensor | None, ...], grad: Tensor) -> tuple:
        x, mean, inverse, weight = saved
        sizes = len(x), x.shape[1], x.shape[2] * x.shape[3], 1
        statistics = mean.flatten(1), inverse.flatten(1)
        gradients = torch.ops.aten.native_group_norm_backward(
            grad.contiguous(), x.contiguous(), *statistics, weight, *sizes,
            list(ctx.needs_input_grad[:3]),
        )  # fmt: skip
        return *gradients, None
