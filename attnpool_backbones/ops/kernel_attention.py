"""Self-attention over a grid plus a static kernel (CoAtNet, arXiv 2106.04803), in linear memory."""

import torch
from torch import Tensor

from attnpool_backbones.ops.attention import attention, attention_maps
from attnpool_backbones.ops.formula import operator
from attnpool_backbones.ops.precision import full_precision, wide_dtype
from attnpool_backbones.ops.relative_attention import check_table, grid_of, offset_bias


@operator
def kernel_attention(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
    """Returns (softmax(q k^T / sqrt(d)) + kernel) v over a grid (arXiv 2106.04803, eq. 3, "post").

    The kernel of query (p, q) and key (r, s) is ``table[:, p - r + H - 1, q - s + W - 1]``: beside
    plain attention stands a depthwise convolution as large as the map, with one kernel a head. The
    fast form computes the convolution as a product of Fourier transforms, which counts no
    multiply-accumulates, in float32 at least.

    Args:
        q: Queries B, h, H*W, d; tokens run along the rows of the grid.
        k: Keys, as the queries.
        v: Values, as the queries.
        table: Kernel of each head by offset, h, 2H-1, 2W-1. It tells the grid.

    Returns:
        B, h, H*W, d.

    Raises:
        ValueError: The table is not of as many heads or of such a grid.
    """
    check_table(q, table)
    maps = attention_maps(q, k) + offset_bias(table).to(q.dtype)  # B, h, H*W, H*W
    return maps @ v  # B, h, H*W, d


@kernel_attention.fast
def _(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
    check_table(q, table)
    if q.shape[0] == 0:  # a Fourier transform of no image is an error
        return kernel_attention.formula(q, k, v, table)
    return attention(q, k, v) + _convolved(v, table)


def _convolved(v: Tensor, table: Tensor) -> Tensor:
    """Convolves values B, h, H*W, d with the kernels; outside of the grid there are zeros."""
    height, width = grid_of(table)
    # What wraps around at this size falls on outputs that are cut off.
    size = (2 * height, 2 * width)
    wide = wide_dtype(v.dtype)
    with full_precision(v.device):
        maps = v.to(wide).unflatten(2, (height, width))  # B, h, H, W, d
        spectrum = torch.fft.rfft2(maps, size, dim=(2, 3))
        spectrum = spectrum * torch.fft.rfft2(table.to(wide), size)[..., None]
        y = torch.fft.irfft2(spectrum, size, dim=(2, 3))
    y = y[:, :, height - 1 : 2 * height - 1, width - 1 : 2 * width - 1]
    return y.flatten(2, 3).to(v.dtype)
