"""Masks of point-wise spatial attention (PSANet, ECCV 2018, eq. 7 and 8) as in mmcv."""

import torch
from torch import Tensor
from torch.nn import functional as F

from attnpool_backbones.ops.formula import operator

PSA_TYPES = ('collect', 'distribute')
"""By mmcv's numbers 0 and 1."""


@operator
def psa_mask(masks: Tensor, psa_type: str, mask_size: tuple[int, int]) -> Tensor:
    """Turns weights by relative position into weights between all pairs of pixels.

    Args:
        masks: B, mask height * mask width, H, W: at each pixel the weights of the pixels around.
        psa_type: ``'collect'``: at each pixel those with which it takes from all others;
            ``'distribute'``: those with which it gives.
        mask_size: Height and width of the masks.

    Returns:
        B, H * W, H, W; zero between pixels that no mask connects.
    """
    _checked(psa_type)
    (height, width), half = masks.shape[2:], [(size - 1) // 2 for size in mask_size]
    output = masks.new_zeros(len(masks), height * width, height * width)
    for index, mask in enumerate(masks.flatten(2).unbind(1)):  # B, H * W
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
        there_y = y + index // mask_size[1] - half[0]
        there_x = x + index % mask_size[1] - half[1]
        there = (there_y >= 0) & (there_y < height) & (there_x >= 0) & (there_x < width)
        here, other = (y * width + x)[there], (there_y * width + there_x)[there]
        pair = (other, here) if psa_type == 'collect' else (here, other)
        output[:, pair[0], pair[1]] = mask[:, here]
    return output.unflatten(2, (height, width))


@psa_mask.fast
def _(masks: Tensor, psa_type: str, mask_size: tuple[int, int]) -> Tensor:
    _checked(psa_type)
    size = masks.shape[2:]
    table = masks.unflatten(1, mask_size).permute(0, 3, 4, 1, 2)  # B, H, W, mask height and width
    table = F.pad(table, _padding(size, mask_size)).contiguous()
    given = torch.as_strided(table, *_skewed(table, size, mask_size)).flatten(3).flatten(1, 2)
    return (given.mT if psa_type == 'collect' else given).unflatten(2, size)


def psa_mask_backward(grad: Tensor, psa_type: str, mask_size: tuple[int, int]) -> Tensor:
    """Returns the gradient of the masks of :func:`psa_mask` for that of its result."""
    size = grad.shape[2:]
    given = grad.flatten(2).mT if psa_type == 'collect' else grad.flatten(2)  # B, H * W, H * W
    padding = _padding(size, mask_size)
    shape = (mask_size[0] + sum(padding[2:]), mask_size[1] + sum(padding[:2]))
    table = grad.new_zeros(len(grad), *size, *shape)
    view = torch.as_strided(table, *_skewed(table, size, mask_size))
    view.copy_(given.unflatten(2, size).unflatten(1, size))
    table = F.pad(table, [-pad for pad in padding])  # B, H, W, mask height and width
    return table.permute(0, 3, 4, 1, 2).flatten(1, 2)


def _checked(psa_type: str) -> None:
    if psa_type not in PSA_TYPES:
        raise ValueError(f'unknown psa_type {psa_type!r}, choose from {PSA_TYPES}')


def _padding(size: torch.Size, mask_size: tuple[int, int]) -> list[int]:
    """Returns what a mask needs at its left, right, top and bottom to reach all pixels."""
    padding = []
    for length, mask in zip(reversed(size), reversed(mask_size), strict=True):
        half = (mask - 1) // 2
        padding += [max(0, length - 1 - half), max(0, length + half - mask)]
    return padding


def _skewed(
    table: Tensor, size: torch.Size, mask_size: tuple[int, int]
) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Returns shape, strides and offset that turn relative positions into absolute ones.

    A pixel (h, w) has the weight of (y, x) at y - h, x - w from the middle of its mask: one step in
    h is a step to the next pixel's mask and one back in it.
    """
    left, _, top, _ = _padding(size, mask_size)
    middle = (mask_size[0] - 1) // 2 + top, (mask_size[1] - 1) // 2 + left
    _, height, width, *mask = table.shape
    pixel, line = mask[0] * mask[1], mask[1]
    strides = height * width * pixel, width * pixel - line, pixel - 1, line, 1
    return (len(table), *size, *size), strides, middle[0] * line + middle[1]
