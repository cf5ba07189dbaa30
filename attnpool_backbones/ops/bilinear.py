"""Sums of pixels between which points lie, for operators that sample where they like."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Corners(NamedTuple):
    """The four pixels around points; each field has a last axis of four."""

    index: Tensor
    """Row by row in the map; 0 beyond it."""
    weight: Tensor
    """Of the pixel in the value at the point; 0 beyond the map."""
    slope_y: Tensor
    """Derivative of the weight by the point's y."""
    slope_x: Tensor
    """Derivative of the weight by the point's x."""


def corners(y: Tensor, x: Tensor, height: int | Tensor, width: int | Tensor) -> Corners:
    """Returns the pixels around points, with zero beyond the map.

    Points one pixel or more beyond the map have neither weights nor slopes. At the coordinate of a
    pixel a slope is that towards the next pixel.

    Args:
        y: Coordinates of any shape; 0 is the centre of the first row of pixels.
        x: Likewise, of columns.
        height: Of the map, or of the map of each point.
        width: Likewise.
    """
    inside = (y > -1) & (y < height) & (x > -1) & (x < width)
    y, x = torch.where(inside, y, 0), torch.where(inside, x, 0)
    top, left = y.detach().floor(), x.detach().floor()
    down, right = y - top, x - left
    index, weight, slope_y, slope_x = [], [], [], []
    for row, row_weight, row_sign in ((top, 1 - down, -1), (top + 1, down, 1)):
        for column, column_weight, column_sign in ((left, 1 - right, -1), (left + 1, right, 1)):
            there = inside & (row >= 0) & (row < height) & (column >= 0) & (column < width)
            index.append(torch.where(there, row * width + column, 0).long())
            weight.append(row_weight * column_weight * there)
            slope_y.append(row_sign * column_weight * there)
            slope_x.append(column_sign * row_weight * there)
    return Corners(*(torch.stack(field, -1) for field in (index, weight, slope_y, slope_x)))


def weighted_sums(table: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    """Returns sums of rows of a table, each row times a weight.

    Args:
        table: R, C, at least float32.
        indices: B, n.
        weights: B, n, of the type of ``table``.

    Returns:
        B, C. Nothing of the size B, n, C is stored.
    """
    return F.embedding_bag(indices, table, per_sample_weights=weights, mode='sum')


def weighted_sums_backward(
    grad: Tensor, table: Tensor, indices: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns the gradients of :func:`weighted_sums` for the table and the weights.

    Not by autograd, which does not record inside of torch's custom operators.
    """
    bags, size = indices.shape
    begins = torch.arange(bags, device=grad.device) * size
    bag_of = torch.arange(bags, device=grad.device).repeat_interleave(size)
    sizes = torch.full_like(begins, size)
    grad, indices = grad.contiguous(), indices.flatten()
    grad_table = torch.ops.aten._embedding_bag_dense_backward(
        grad, indices, bag_of, sizes, begins[:0], len(table), False, 0, weights.flatten()
    )
    grad_weights = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        grad, table, indices, begins, bag_of, 0
    )
    return grad_table, grad_weights.view_as(weights)
