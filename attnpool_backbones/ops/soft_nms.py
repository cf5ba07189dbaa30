"""Soft-NMS (arXiv 1704.04503, eq. 2 and 3) as mmcv defines it."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from attnpool_backbones.ops.formula import operator
from attnpool_backbones.ops.nms import box_table, overlapping_pairs, overlaps
from attnpool_backbones.ops.own_operator import own_operator
from attnpool_backbones.ops.precision import wide_dtype

Neighbours = Callable[[int], tuple[np.ndarray, np.ndarray]]
"""From a box to those whose scores it lowers, and the factors."""
METHODS = ('naive', 'linear', 'gaussian')
"""By mmcv's numbers 0, 1 and 2."""


@operator
def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float = 0.3,
    sigma: float = 0.5,
    min_score: float = 1e-3,
    method: str = 'linear',
    offset: int = 0,
) -> tuple[Tensor, Tensor]:
    """Takes the best box again and again, and lowers the scores of those that overlap it.

    On the CPU, whatever the device. The fast form computes the overlaps once and takes all boxes
    at a time that no other comes before; where scores are equal or not finite it takes one box
    after the other, in mmcv's order. It holds about 100 bytes for each pair of boxes that lower
    each other. Two boxes without an area leave each other's score as it is; mmcv's ``'gaussian'``
    makes it NaN.

    Args:
        boxes: N, 4: x1, y1, x2, y2.
        scores: N.
        iou_threshold: Intersection over union from which on scores are lowered, but not by
            ``'gaussian'``, which lowers all that overlap. Default: 0.3.
        sigma: Of ``'gaussian'``. Default: 0.5.
        min_score: Boxes whose score falls below it are left out. Default: 1e-3.
        method: ``'linear'``: by the factor 1 - IoU; ``'gaussian'``: exp(-IoU^2 / sigma);
            ``'naive'``: to zero. Default: ``'linear'``.
        offset: 0, or 1 where x2 and y2 are the last pixels inside. Default: 0.

    Returns:
        M, 5: the boxes and their new scores, best first; M: their indices.
    """
    table = box_table(boxes, offset)
    shared = overlaps(table, table, offset)  # N, N
    factors = _factors(shared, iou_threshold, sigma, method).cpu().numpy()
    everyone = np.arange(len(boxes))
    return _take(boxes, scores, min_score, lambda box: (everyone, factors[box]))


@soft_nms.fast
def _(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float = 0.3,
    sigma: float = 0.5,
    min_score: float = 1e-3,
    method: str = 'linear',
    offset: int = 0,
) -> tuple[Tensor, Tensor]:
    return soften(boxes, scores, iou_threshold, sigma, min_score, method, offset)


@own_operator('soft_nms')
def soften(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: str,
    offset: int,
) -> tuple[Tensor, Tensor]:
    """Computes the fast form of :func:`soft_nms`."""
    if method == 'naive' and iou_threshold <= 0:  # distant boxes count too
        return soft_nms.formula(boxes, scores, iou_threshold, sigma, min_score, method, offset)
    table = box_table(boxes, offset)
    # 'gaussian' lowers all that overlap, the others from the threshold on
    least = 0.0 if method == 'gaussian' else max(0.0, np.nextafter(np.float32(iou_threshold), -1))
    first, second = overlapping_pairs(table, float(least), offset)
    shared = overlaps(table[:, first], table[:, second], offset, aligned=True)
    factors = _factors(shared, iou_threshold, sigma, method)
    lowered = factors != 1
    pairs = Pairs(*(t[lowered].cpu().numpy() for t in (first, second, factors)))
    values = _values(scores)
    order = _take_in_rounds(values, min_score, pairs)
    if order is None:
        return _take(boxes, scores, min_score, _neighbours(len(boxes), pairs))
    indices = torch.from_numpy(order).to(boxes.device)
    taken = torch.from_numpy(values[order]).to(boxes.device, boxes.dtype)
    return torch.cat([boxes[indices], taken.unsqueeze(1)], 1), indices


class Pairs(NamedTuple):
    """Pairs of boxes that lower each other's score."""

    first: np.ndarray
    """P: index of the one."""
    second: np.ndarray
    """P: index of the other."""
    factors: np.ndarray
    """P: what a score is multiplied by."""


def _take_in_rounds(values: np.ndarray, min_score: float, pairs: Pairs) -> np.ndarray | None:
    """Takes in each round all boxes that none of their neighbours comes before.

    A box's score is final once it is the best of those that overlap it, wherever the others are.
    Only the order of multiplications could differ from taking one box after the other, so in the
    end they are done once more in that order.

    Args:
        values: N: scores; those of the boxes that are taken become final.
        min_score: See :func:`soft_nms`.
        pairs: Of boxes that lower each other.

    Returns:
        The boxes that are taken, best first. None where equal, infinite or negative scores make
        the result a matter of places, see :func:`_take`.
    """
    least = values.dtype.type(min_score)
    if not np.isfinite(values).all() or not len(values) or values.max() < least:
        return None
    start, waiting = values.copy(), values >= least
    if least < 0 and (values < 0).any():
        return None
    taken = np.zeros_like(waiting)
    first, second, factors = pairs
    while len(first):
        alive = waiting[first] & waiting[second]
        first, second, factors = first[alive], second[alive], factors[alive]
        one, other = values[first], values[second]
        if (one == other).any():
            return None
        loses = np.where(one < other, first, second)
        best = waiting.copy()
        best[loses] = False
        decided = best[first] | best[second]
        np.multiply.at(values, loses[decided], factors[decided])
        taken |= best
        waiting &= ~best & (values >= least)
    taken |= waiting
    order = np.flatnonzero(taken)
    order = order[np.argsort(-values[order], kind='stable')]
    rank = np.full(len(values), len(values))
    rank[order] = np.arange(len(order))
    first, second, factors = pairs
    winner = np.where(rank[first] < rank[second], first, second)
    loser = first + second - winner
    in_order = np.argsort(rank[winner], kind='stable')
    in_order = in_order[rank[winner[in_order]] < len(values)]
    values[:] = start
    np.multiply.at(values, loser[in_order], factors[in_order])
    final = values[order]
    return order if (final[1:] < final[:-1]).all() and (final >= least).all() else None


def _neighbours(count: int, pairs: Pairs) -> Neighbours:
    """Returns what tells the boxes whose scores a box lowers, and the factors."""
    boxes = np.concatenate(pairs[:2])
    order = boxes.argsort(kind='stable')
    others = np.concatenate([pairs.second, pairs.first])[order]
    factors = np.concatenate([pairs.factors, pairs.factors])[order]
    begins = np.searchsorted(boxes[order], np.arange(count + 1)).tolist()

    def neighbours(index: int) -> tuple[np.ndarray, np.ndarray]:
        part = slice(begins[index], begins[index + 1])
        return others[part], factors[part]

    return neighbours


def _values(scores: Tensor) -> np.ndarray:
    return scores.detach().to('cpu', wide_dtype(scores.dtype)).numpy().copy()


@soften.register_fake
def _(boxes: Tensor, scores: Tensor, *_) -> tuple[Tensor, Tensor]:
    kept = torch.library.get_ctx().new_dynamic_size()
    return boxes.new_empty(kept, 5), scores.new_empty(kept, dtype=torch.int64)


def _factors(shared: Tensor, iou_threshold: float, sigma: float, method: str) -> Tensor:
    """Returns the factors of scores for intersections over unions; NaN lowers nothing."""
    if method not in METHODS:
        raise ValueError(f'unknown method {method!r}, choose from {METHODS}')
    if method == 'gaussian':
        return torch.where(shared.isnan(), 1, torch.exp(-(shared * shared) / sigma))
    lowered = 1 - shared if method == 'linear' else torch.zeros_like(shared)
    threshold = torch.tensor(iou_threshold, dtype=shared.dtype, device=shared.device)
    return torch.where(shared >= threshold, lowered, 1)


def _take(
    boxes: Tensor, scores: Tensor, min_score: float, neighbours: Neighbours
) -> tuple[Tensor, Tensor]:
    """Takes boxes one after the other.

    The boxes not yet taken lie as in mmcv: one that is taken changes places with the first of
    them, and in the place of one that is left out comes the last. Equal scores follow from it.

    Args:
        boxes: N, 4.
        scores: N.
        min_score: See :func:`soft_nms`.
        neighbours: Of a box, to the boxes whose scores it lowers and the factors.
    """
    values = _values(scores)  # by place
    least = values.dtype.type(min_score)
    total = end = len(values)
    box_at, place_of = np.arange(total), np.arange(total)
    begin = 0
    while begin < end:
        best = begin + _first_best(values[begin:end])
        box, other = int(box_at[best]), box_at[begin]
        values[best], values[begin] = values[begin], values[best]
        box_at[best], box_at[begin] = other, box
        place_of[other], place_of[box] = best, begin
        lowered, factors = neighbours(box)
        places = place_of[lowered]
        waiting = (places > begin) & (places < end)
        places = places[waiting]
        with np.errstate(invalid='ignore'):  # infinite scores to zero
            values[places] *= factors[waiting]
        if begin == 0:
            places = np.arange(1, end)
        low = np.sort(places[values[places] < least]).tolist()
        end = _leave_out(low, end, values, box_at, place_of)
        begin += 1
    indices = torch.from_numpy(box_at[:end].copy()).to(boxes.device)
    taken = torch.from_numpy(values[:end].copy()).to(boxes.device, boxes.dtype)
    return torch.cat([boxes[indices], taken.unsqueeze(1)], 1), indices


def _first_best(values: np.ndarray) -> int:
    """Returns the first highest value; a NaN only counts in the first place, as in mmcv."""
    best = int(values.argmax())
    if np.isnan(values[best]):
        return 0 if np.isnan(values[0]) else int(np.nanargmax(values))
    return best


def _leave_out(
    low: list[int], end: int, values: np.ndarray, box_at: np.ndarray, place_of: np.ndarray
) -> int:
    """Fills places, ascending, with the last boxes that may stay; returns the new end."""
    leaving = set(low)
    for place in low:
        if place >= end:
            break
        place_of[box_at[place]] = len(values)
        end -= 1
        while end > place and end in leaving:
            place_of[box_at[end]] = len(values)
            end -= 1
        if end > place:
            values[place], box_at[place] = values[end], box_at[end]
            place_of[box_at[place]] = place
    return end
