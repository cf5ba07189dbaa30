"""CARAFE: upsampling by kernels that are made for each pixel (arXiv 1905.02188, eq. 4)."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from attnpool_backbones.ops.bilinear import weighted_sums, weighted_sums_backward
from attnpool_backbones.ops.formula import operator
from attnpool_backbones.ops.own_operator import own_operator
from attnpool_backbones.ops.precision import full_precision, wide_dtype

CELLS = 1 << 19  # weights of pixels that are held at a time


@operator
def carafe(features: Tensor, masks: Tensor, kernel_size: int, groups: int, scale: int) -> Tensor:
    """Makes each output pixel the weighted sum of a window around its source pixel.

    The fast form stores no windows; it takes output rows in chunks of about 10 MiB of weights.
    Sums are at least float32.

    Args:
        features: B, C, H, W.
        masks: B, groups * kernel_size^2, H * scale, W * scale: the weights in each window.
        kernel_size: Of the windows, odd; zero beyond the map.
        groups: Groups of channels with weights of their own.
        scale: How much larger the output is.

    Returns:
        B, C, H * scale, W * scale.
    """
    wide = wide_dtype(features.dtype)
    windows = F.unfold(features.to(wide), kernel_size, padding=kernel_size // 2)
    windows = windows.unflatten(1, (groups, -1, kernel_size**2))
    windows = windows.unflatten(4, features.shape[2:])  # B, G, C / G, K, H, W
    windows = windows.repeat_interleave(scale, 4).repeat_interleave(scale, 5)
    weights = masks.to(wide).unflatten(1, (groups, 1, -1))  # B, G, 1, K, H', W'
    return (windows * weights).sum(3).flatten(1, 2).to(features.dtype)


@carafe.fast
def _(features: Tensor, masks: Tensor, kernel_size: int, groups: int, scale: int) -> Tensor:
    return reassemble(features, masks, kernel_size, groups, scale)


@own_operator('carafe')
def reassemble(
    features: Tensor, masks: Tensor, kernel_size: int, groups: int, scale: int
) -> Tensor:
    """Computes the fast form of :func:`carafe`."""
    output = _room(features, masks)
    sizes = kernel_size, groups, scale
    with full_precision(features.device):
        for image in range(len(features)):
            table = _table(features[image], groups)
            for rows in _parts(masks):
                index, weights, _ = _windows(features[image], masks[image, :, rows], *sizes, rows)
                sums = weighted_sums(table, index, weights)
                shape = (*output[image, 0, rows].shape, output.shape[1])
                output[image, :, rows] = sums.view(shape).permute(2, 0, 1).to(output.dtype)
    return output


@own_operator('carafe_backward')
def reassemble_backward(
    grad: Tensor, features: Tensor, masks: Tensor, kernel_size: int, groups: int, scale: int
) -> tuple[Tensor, Tensor]:
    """Returns the gradients of features and masks."""
    grad_features, grad_masks = features.new_empty(features.shape), masks.new_empty(masks.shape)
    sizes = kernel_size, groups, scale
    with full_precision(features.device):
        for image in range(len(features)):
            table = _table(features[image], groups)
            total = torch.zeros_like(table)
            for rows in _parts(masks):
                index, weights, there = _windows(
                    features[image], masks[image, :, rows], *sizes, rows
                )
                grads = grad[image, :, rows].permute(1, 2, 0).to(table.dtype)
                grads = grads.reshape(len(index), -1)
                for_table, for_weights = weighted_sums_backward(grads, table, index, weights)
                total += for_table
                for_masks = (for_weights * there).view(*grad[image, 0, rows].shape, -1)
                grad_masks[image, :, rows] = for_masks.permute(2, 0, 1)
            grad_features[image] = total.view(*features.shape[2:], -1).permute(2, 0, 1)
    return grad_features, grad_masks


def _room(features: Tensor, masks: Tensor, *_: Any) -> Tensor:
    return features.new_empty(*features.shape[:2], *masks.shape[2:])


def _keep(ctx: Any, inputs: tuple, output: Tensor) -> None:
    features, masks, *ctx.sizes = inputs
    ctx.save_for_backward(features, masks)


def _gradients(ctx: Any, grad: Tensor) -> tuple:
    return *reassemble_backward(grad, *ctx.saved_tensors, *ctx.sizes), None, None, None


reassemble.register_fake(_room)
reassemble.register_autograd(_gradients, setup_context=_keep)
reassemble_backward.register_fake(
    lambda grad, features, masks, *_: (
        features.new_empty(features.shape),
        masks.new_empty(masks.shape),
    )
)


def _table(features: Tensor, groups: int) -> Tensor:
    """Returns a map C, H, W as rows H * W * G, C / G."""
    rows = features.permute(1, 2, 0).to(wide_dtype(features.dtype))
    return rows.reshape(-1, features.shape[0] // groups)


def _parts(masks: Tensor) -> Iterator[slice]:
    """Yields parts of the output rows."""
    step = max(1, CELLS // max(1, masks[0, :, 0].numel()))
    for begin in range(0, masks.shape[2], step):
        yield slice(begin, begin + step)


def _windows(
    features: Tensor, masks: Tensor, kernel_size: int, groups: int, scale: int, rows: slice
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the table's rows in each window, their weights, and which lie on the map.

    Args:
        features: C, H, W.
        masks: G * K, and some rows of the output.
        kernel_size: See :func:`carafe`.
        groups: Likewise.
        scale: Likewise.
        rows: Which rows of the output these are.

    Returns:
        Each H' * W' * G, K.
    """
    device, (_, height, width) = masks.device, features.shape
    tap = torch.arange(kernel_size**2, device=device)
    y = torch.arange(height * scale, device=device)[rows] // scale
    x = torch.arange(width * scale, device=device) // scale
    y = y.view(-1, 1, 1, 1) + tap // kernel_size - kernel_size // 2
    x = x.view(1, -1, 1, 1) + tap % kernel_size - kernel_size // 2
    there = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    group = torch.arange(groups, device=device).unsqueeze(1)
    index = torch.where(there, y * width + x, 0) * groups + group  # H', W', G, K
    weights = masks.permute(1, 2, 0).to(wide_dtype(features.dtype)).unflatten(2, (groups, -1))
    there = there.expand(index.shape)
    return tuple(t.flatten(0, 2) for t in (index, weights * there, there))
