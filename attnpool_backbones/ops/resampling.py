"""Resampling of maps, also where results have to be the same in every run."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from attnpool_backbones.ops.precision import full_precision, wide_dtype

Resample = Callable[[Tensor, Sequence[int]], Tensor]


def bicubic(x: Tensor, size: Sequence[int]) -> Tensor:
    """Interpolates a map B, C, H, W bicubically to height and width ``size``.

    Where ``torch.use_deterministic_algorithms`` is on, its gradient is deterministic on CUDA, too.
    """
    return _resampled(x, size, _bicubic)


def averaged(x: Tensor, size: Sequence[int]) -> Tensor:
    """Averages a map B, C, H, W over windows, as ``adaptive_avg_pool2d``; see :func:`bicubic`."""
    return _resampled(x, size, F.adaptive_avg_pool2d)


def _bicubic(x: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(x, size=tuple(size), mode='bicubic', align_corners=False)


def _resampled(x: Tensor, size: Sequence[int], resample: Resample) -> Tensor:
    # torch's own backward pass of these would raise there
    if x.is_cuda and torch.are_deterministic_algorithms_enabled():
        return by_products(x, size, resample)
    return resample(x, size)


def by_products(x: Tensor, size: Sequence[int], resample: Resample) -> Tensor:
    """Computes a resampling that is linear, and separate along both axes, by matrix products.

    Args:
        x: Map B, C, H, W.
        size: Height and width of the result.
        resample: The resampling, of a map and a size.

    Returns:
        B, C, ``size``, of the type of ``x``.
    """
    wide = x.to(wide_dtype(x.dtype))
    with full_precision(x.device):
        rows, columns = (
            _weights(old, new, wide, resample) for old, new in zip(x.shape[2:], size, strict=True)
        )
        return (rows @ wide @ columns.mT).to(x.dtype)


@torch.no_grad()
def _weights(old: int, new: int, like: Tensor, resample: Resample) -> Tensor:
    """Returns the matrix new, old of a resampling along one axis."""
    units = torch.eye(old, dtype=like.dtype, device=like.device)[None, ..., None]  # 1, old, old, 1
    return resample(units, (new, 1))[0, ..., 0].mT
