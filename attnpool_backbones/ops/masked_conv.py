"""Convolution at some pixels only (mmcv's MaskedConv2d, used by Guided Anchoring)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from attnpool_backbones.ops.formula import operator


@operator
def masked_conv2d(
    x: Tensor, mask: Tensor, weight: Tensor, bias: Tensor, padding: tuple[int, int] = (0, 0)
) -> Tensor:
    """Convolves with stride 1 where a mask is above zero; elsewhere the result is zero.

    The fast form computes, and stores, the windows at those pixels only.

    Args:
        x: 1, C, H, W.
        mask: 1, H', W', as large as the result.
        weight: O, C, and the kernel's height and width.
        bias: O.
        padding: Vertical and horizontal. Default: (0, 0).

    Returns:
        1, O, H', W'.
    """
    return F.conv2d(x, weight, bias, padding=padding) * (mask > 0)


@masked_conv2d.fast(compiled=False)
def _(
    x: Tensor, mask: Tensor, weight: Tensor, bias: Tensor, padding: tuple[int, int] = (0, 0)
) -> Tensor:
    rows, columns = (mask[0] > 0).nonzero(as_tuple=True)
    windows = windows_at(x, rows, columns, weight.shape[2:], padding)  # C * K, M
    values = torch.addmm(bias.unsqueeze(1), weight.flatten(1), windows)  # O, M
    channels = torch.arange(len(weight), device=x.device).unsqueeze(1)
    output = values.new_zeros(len(weight), *mask.shape[1:])
    return output.index_put((channels, rows, columns), values).unsqueeze(0)


def windows_at(
    x: Tensor, rows: Tensor, columns: Tensor, kernel: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """Returns the windows of a convolution at M pixels, C * K, M.

    Args:
        x: 1, C, H, W.
        rows: M: of the result's pixels.
        columns: M.
        kernel: Height and width.
        padding: Vertical and horizontal.
    """
    padded = F.pad(x[0], (padding[1], padding[1], padding[0], padding[0]))
    y = torch.arange(kernel[0], device=x.device).view(-1, 1, 1) + rows
    x_ = torch.arange(kernel[1], device=x.device).view(1, -1, 1) + columns
    return padded[:, y, x_].flatten(0, 2)
