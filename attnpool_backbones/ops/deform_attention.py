"""Multi-scale deformable attention (arXiv 2010.04159, eq. 3) as mmcv defines it."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from attnpool_backbones.ops.bilinear import (
    Corners,
    corners,
    weighted_sums,
    weighted_sums_backward,
)
from attnpool_backbones.ops.formula import operator
from attnpool_backbones.ops.own_operator import own_operator
from attnpool_backbones.ops.precision import full_precision, wide_dtype

CELLS = 1 << 19  # weights of pixels that are held at a time


@operator
def deform_attention(
    value: Tensor,
    level_shapes: Tensor,
    level_starts: Tensor,
    locations: Tensor,
    attention: Tensor,
) -> Tensor:
    """Sums, for each query and head, what a few weighted points in all levels see.

    The fast form never stores what single points see: a query's result is one weighted sum of
    pixels. It takes queries in chunks of about 30 MiB of weights. Sums are at least float32.

    Args:
        value: B, S, M, D: the pixels of all levels one after the other, M heads of D channels.
        level_shapes: L, 2, int64: heights and widths.
        level_starts: L, int64: index of each level's first pixel.
        locations: B, Q, M, L, P, 2: x and y of P points for each level, 0 to 1 over the map.
        attention: B, Q, M, L, P: weights of the points.

    Returns:
        B, Q, M * D.
    """
    wide = wide_dtype(value.dtype)
    around = _around(level_shapes, locations.to(wide))  # B, Q, M, L, P, 4
    index = (around.index + level_starts.view(-1, 1, 1)).transpose(1, 2).flatten(2)
    share = (
        (around.weight * attention.unsqueeze(-1)).transpose(1, 2).flatten(2)
    )  # B, M, Q * L * P * 4
    pixels = value.to(wide).permute(0, 2, 3, 1)  # B, M, D, S
    taken = pixels.gather(3, index.unsqueeze(2).expand(-1, -1, pixels.shape[2], -1))
    sums = (taken * share.unsqueeze(2)).unflatten(3, (locations.shape[1], -1)).sum(-1)  # B, M, D, Q
    return sums.permute(0, 3, 1, 2).flatten(2).to(value.dtype)


@deform_attention.fast
def _(
    value: Tensor,
    level_shapes: Tensor,
    level_starts: Tensor,
    locations: Tensor,
    attention: Tensor,
) -> Tensor:
    return attend(value, level_shapes, level_starts, locations, attention)


@own_operator('deform_attention')
def attend(
    value: Tensor,
    level_shapes: Tensor,
    level_starts: Tensor,
    locations: Tensor,
    attention: Tensor,
) -> Tensor:
    """Computes the fast form of :func:`deform_attention`."""
    output = _room(value, level_shapes, level_starts, locations, attention)
    table = _table(value)
    with full_precision(value.device):
        for part in _parts(locations):
            places = (t[:, part].to(table.dtype) for t in (locations, attention))
            rows, share, _ = _points(value.shape, level_shapes, level_starts, *places)
            sums = weighted_sums(table, rows, share)
            output[:, part] = sums.view(output[:, part].shape).to(output.dtype)
    return output


@own_operator('deform_attention_backward')
def attend_backward(
    grad: Tensor,
    value: Tensor,
    level_shapes: Tensor,
    level_starts: Tensor,
    locations: Tensor,
    attention: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the gradients of the values, the locations and the attention."""
    table = _table(value)
    grad_table = torch.zeros_like(table)
    grad_locations, grad_attention = torch.empty_like(locations), torch.empty_like(attention)
    with full_precision(value.device):
        for part in _parts(locations):
            places = [t[:, part].to(table.dtype) for t in (locations, attention)]
            rows, share, around = _points(value.shape, level_shapes, level_starts, *places)
            grads = grad[:, part].to(table.dtype).reshape(len(rows), value.shape[3])
            for_table, for_share = weighted_sums_backward(grads, table, rows, share)
            grad_table += for_table
            for_share = for_share.view(around.weight.shape)
            grad_attention[:, part] = (for_share * around.weight).sum(-1)
            for_weight = for_share * places[1].unsqueeze(-1)
            sizes = level_shapes.to(table.dtype).view(-1, 1, 2)
            by_x = (for_weight * around.slope_x).sum(-1) * sizes[..., 1]
            by_y = (for_weight * around.slope_y).sum(-1) * sizes[..., 0]
            grad_locations[:, part] = torch.stack([by_x, by_y], -1)
    return grad_table.view(value.shape).to(value.dtype), grad_locations, grad_attention


def _room(
    value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, attention: Tensor
) -> Tensor:
    return value.new_empty(*locations.shape[:2], value.shape[2] * value.shape[3])


def _keep(ctx: Any, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradients(ctx: Any, grad: Tensor) -> tuple:
    grad_value, grad_locations, grad_attention = attend_backward(grad, *ctx.saved_tensors)
    return grad_value, None, None, grad_locations, grad_attention


attend.register_fake(_room)
attend.register_autograd(_gradients, setup_context=_keep)
attend_backward.register_fake(
    lambda grad, value, shapes, starts, locations, attention: tuple(
        torch.empty_like(t, memory_format=torch.contiguous_format)
        for t in (value, locations, attention)
    )
)


def _table(value: Tensor) -> Tensor:
    """Returns the values as B * S * M rows of D channels."""
    return value.to(wide_dtype(value.dtype)).reshape(-1, value.shape[3])


def _parts(locations: Tensor) -> Iterator[slice]:
    """Yields parts of the queries."""
    batch, queries, *points, _ = locations.shape
    step = max(1, CELLS // max(1, batch * torch.Size(points).numel() * 4))
    for begin in range(0, queries, step):
        yield slice(begin, begin + step)


def _points(
    shape: torch.Size,
    level_shapes: Tensor,
    level_starts: Tensor,
    locations: Tensor,
    attention: Tensor,
) -> tuple[Tensor, Tensor, Corners]:
    """Returns rows of the table and their weights, B * Q * M, L * P * 4, and the corners."""
    batch, pixels, heads, _ = shape
    around = _around(level_shapes, locations)  # B, Q, M, L, P, 4
    device = locations.device
    image = torch.arange(batch, device=device).view(-1, 1, 1, 1, 1, 1)
    head = torch.arange(heads, device=device).view(-1, 1, 1, 1)
    rows = (image * pixels + around.index + level_starts.view(-1, 1, 1)) * heads + head
    share = around.weight * attention.unsqueeze(-1)
    return rows.flatten(0, 2).flatten(1), share.flatten(0, 2).flatten(1), around


def _around(level_shapes: Tensor, locations: Tensor) -> Corners:
    """Returns the pixels around points B, Q, M, L, P, 2, in the maps of their levels."""
    sizes = level_shapes.view(-1, 1, 2)
    x, y = (locations * sizes.flip(-1) - 0.5).unbind(-1)
    return corners(y, x, sizes[..., 0], sizes[..., 1])
