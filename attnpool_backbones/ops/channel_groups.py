"""Sums over the channels of a group, and values repeated for them, of tokens on a CPU.

Channels of a token lie together, those of a group too. With few of them PyTorch's loops begin anew
every few values: with 4 channels a pass takes ten times as long as it should. Multiplied by a
matrix of zeros and ones, :data:`BLOCK` groups at a time, it takes two to three.
"""

import torch
from torch import Tensor

from attnpool_backbones.ops.onednn import may_call_onednn

BLOCK = 16
"""Groups that a product takes together; all others' channels would be multiplied by zeros."""
MOST_CHANNELS = 8
"""Channels of a group up to which the zeros cost less than the loops."""


def suits_products(x: Tensor, channels: int | None = None) -> bool:
    """Tells whether products serve tokens of some groups.

    Args:
        x: Tokens 1, N, G, d.
        channels: d. Default: that of ``x``.
    """
    if x.dtype != torch.float32 or x.shape[2] % BLOCK:
        return False
    return 1 < (channels or x.shape[3]) <= MOST_CHANNELS and may_call_onednn(x)


def group_sums(x: Tensor, factors: Tensor | None = None) -> Tensor:
    """Returns the sums of factors * x over the channels of each group, 1, N, G, 1.

    Args:
        x: Tokens 1, N, G, d, where :func:`suits_products`.
        factors: 1, 1, G, d. Default: 1.
    """
    groups, channels = x.shape[2:]
    weight = _repetition(channels, x)  # BLOCK * d, BLOCK
    weight = weight.t().repeat(groups // BLOCK, 1)  # G, BLOCK * d
    if factors is not None:
        factors = factors.view(-1, 1, weight.shape[1]).expand(-1, BLOCK, -1)
        weight = weight * factors.reshape(groups, -1)
    return _product(x, weight)[..., None]


def repeated(x: Tensor, channels: int) -> Tensor:
    """Returns each value for all channels of its group, 1, N, G, d.

    Args:
        x: A value a group, 1, N, G, 1, where :func:`suits_products`.
        channels: d.
    """
    weight = _repetition(channels, x).repeat(x.shape[2] // BLOCK, 1)  # G * d, BLOCK
    return _product(x, weight).unflatten(2, (x.shape[2], channels))


def _repetition(channels: int, like: Tensor) -> Tensor:
    """Returns the matrix BLOCK * d, BLOCK that repeats the values of a block."""
    eye = torch.eye(BLOCK, dtype=like.dtype, device=like.device)
    return eye.repeat_interleave(channels, dim=0)


def _product(x: Tensor, weight: Tensor) -> Tensor:
    """Multiplies tokens 1, N, G, d, block by block, by a weight of out, in of its block."""
    blocks = x.shape[2] // BLOCK
    pixels = x.flatten(2).transpose(1, 2)[:, :, None]  # 1, C, 1, N; channels_last
    y = torch.ops.mkldnn._convolution_pointwise(
        pixels, weight[:, :, None, None], None, [0, 0], [1, 1], [1, 1], blocks, 'none', [], ''
    )
    return y[:, :, 0].transpose(1, 2)  # 1, N, out
