"""Non-maximum suppression of boxes as mmcv defines it."""

import numpy as np
import torch
from torch import Tensor

from attnpool_backbones.ops.formula import operator
from attnpool_backbones.ops.own_operator import own_operator
from attnpool_backbones.ops.precision import wide_dtype

LEADERS = 128  # boxes whose order is settled at a time; their overlaps are one small matrix
CELLS = 1 << 17  # overlaps computed at a time: three matrices of them fit in a core's cache
CROWD = 4  # boxes that a kept one removes, on average, where removing at once pays


@operator
def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """Removes boxes that overlap one of a higher score by more than a threshold.

    The fast form settles the best boxes first. Where they remove many others, so it goes on; where
    not, it computes the overlaps of neighbours from left to right only, and settles the graph that
    they make. Besides the boxes it holds 2 MiB, and 48 bytes for each pair of boxes left over that
    overlap too much. Coordinates below float32 are computed in float32.

    Args:
        boxes: N, 4: x1, y1, x2, y2. A box with a NaN is kept and removes nothing.
        scores: N. NaN is above all; equal scores have the order that ``torch.sort`` gives them,
            as in mmcv.
        iou_threshold: Intersection over union above which a box is removed.
        offset: 0, or 1 where x2 and y2 are the last pixels inside. Default: 0.

    Returns:
        Indices of the kept boxes by falling score.
    """
    order = scores.sort(0, descending=True)[1]
    table = box_table(boxes[order], offset)
    over = _overlap_too_much(table, table, iou_threshold, offset)  # N, N
    kept = torch.ones_like(order, dtype=torch.bool)
    for index in range(len(order)):
        if kept[index]:
            kept[index + 1 :] &= ~over[index, index + 1 :]
    return order[kept]


@nms.fast
def _(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    return _nms(boxes, scores, iou_threshold, offset)


@own_operator('nms')
def _nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    order = scores.sort(0, descending=True)[1]
    rest = box_table(boxes[order], offset)
    ranks = torch.arange(len(order), device=boxes.device)
    kept = [ranks[:0]]
    while len(ranks):
        over = _overlap_too_much(rest[:, :LEADERS], rest[:, :LEADERS], iou_threshold, offset)
        settled = _settle(over.shape[0], *over.triu_(1).nonzero(as_tuple=True))
        kept.append(ranks[:LEADERS][settled])
        leaders = rest[:, :LEADERS][:, settled]
        ranks, rest = ranks[LEADERS:], rest[:, LEADERS:]
        if not len(ranks):
            break
        free = _free_of(leaders, rest, iou_threshold, offset)
        removed = len(ranks) - len(free)
        if removed:
            ranks, rest = ranks[free], rest[:, free]
        # Without overlap nothing is above a threshold of zero or more, so far boxes can be left
        # out; below zero the first box removes all.
        if removed < CROWD * leaders.shape[1] and len(ranks) > LEADERS and iou_threshold >= 0:
            kept.append(ranks[_settle(len(ranks), *overlapping_pairs(rest, iou_threshold, offset))])
            break
    return order[torch.cat(kept)]


@_nms.register_fake
def _(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    kept = torch.library.get_ctx().new_dynamic_size()
    return scores.new_empty(kept, dtype=torch.int64)


def box_table(boxes: Tensor, offset: int) -> Tensor:
    """Returns x1, y1, x2, y2 and the areas as rows, 5, N."""
    sides = boxes.to(wide_dtype(boxes.dtype)).t()
    areas = (sides[2] - sides[0] + offset) * (sides[3] - sides[1] + offset)
    return torch.cat([sides, areas.unsqueeze(0)])


def overlaps(first: Tensor, second: Tensor, offset: int, aligned: bool = False) -> Tensor:
    """Returns intersections over unions, rounded as in mmcv; NaN where both boxes are empty.

    Args:
        first: 5, M, see :func:`box_table`.
        second: 5, N.
        offset: See :func:`nms`.
        aligned: Whether to compare each box with that of the same index only. Default: False.

    Returns:
        M, N, or M.
    """
    x1, y1, x2, y2, areas = first if aligned else first.unsqueeze(2)
    width = torch.minimum(x2, second[2]).sub_(torch.maximum(x1, second[0]))
    height = torch.minimum(y2, second[3]).sub_(torch.maximum(y1, second[1]))
    if offset:
        width, height = width.add_(offset), height.add_(offset)
    shared = width.clamp_(min=0).mul_(height.clamp_(min=0))
    union = torch.add(areas, second[4], out=height).sub_(shared)
    return shared.div_(union)


def _overlap_too_much(first: Tensor, second: Tensor, threshold: float, offset: int) -> Tensor:
    """Tells which boxes overlap by more than the threshold, M, N."""
    shared = overlaps(first, second, offset)
    # mmcv compares in float32, the threshold too
    return shared > torch.tensor(threshold, dtype=shared.dtype, device=shared.device)


def _free_of(leaders: Tensor, rest: Tensor, threshold: float, offset: int) -> Tensor:
    """Returns the indices of boxes that no leader removes."""
    step = max(1, CELLS // max(1, leaders.shape[1]))
    parts = [
        ~_overlap_too_much(leaders, part, threshold, offset).any(0) for part in rest.split(step, 1)
    ]
    return torch.cat(parts).nonzero().squeeze(1)


def overlapping_pairs(table: Tensor, threshold: float, offset: int) -> tuple[Tensor, Tensor]:
    """Returns the pairs of boxes that overlap too much: ranks of the better and the worse.

    From left to right, a box can only overlap those that begin before it ends.
    """
    lefts, order = table[0].sort()
    table = table[:, order]
    rights = table[2].nan_to_num(nan=float('-inf')).cummax(0)[0] + 2 * offset
    ends = torch.searchsorted(lefts, rights, right=True).tolist()
    pairs, begin, count = [order.new_empty(0, 2)], 0, len(order)
    while begin < count:
        width = ends[min(begin + LEADERS, count) - 1] - begin
        stop = min(begin + min(LEADERS, max(1, CELLS // max(1, width))), count)
        over = _overlap_too_much(
            table[:, begin:stop], table[:, begin : max(ends[stop - 1], stop)], threshold, offset
        )
        pairs.append(order[over.triu_(1).nonzero() + begin])
        begin = stop
    found = torch.cat(pairs)
    better, worse = found.amin(1), found.amax(1)
    better, by_rank = better.sort()
    return better, worse[by_rank]


def _settle(count: int, better: Tensor, worse: Tensor) -> Tensor:
    """Tells which boxes stay: those that no kept one removes.

    Args:
        count: Number of boxes.
        better: Of each pair of boxes that overlap too much the better one's rank, ascending.
        worse: The other one's.
    """
    # One box after the other: on the CPU, whatever the device.
    heads, worse = better.cpu().numpy(), worse.cpu().numpy()
    kept = np.ones(count, dtype=bool)
    begins = np.flatnonzero(np.diff(heads, prepend=-1))
    ends = np.append(begins, len(heads))[1:]
    for head, begin, end in zip(heads[begins], begins, ends, strict=True):
        if kept[head]:
            kept[worse[begin:end]] = False
    return torch.from_numpy(kept).to(better.device)


def nms_groups(boxes: Tensor, scores: Tensor, iou_threshold: float) -> list[list[int]]:
    """Groups boxes as mmcv's ``nms_match`` does: each kept box with those that it removes.

    Args:
        boxes: N, 4.
        scores: N.
        iou_threshold: Intersection over union from which on, inclusively, a box is removed.

    Returns:
        Indices of the boxes of each group, by falling score, as the groups are.
    """
    order = scores.sort(0, descending=True)[1]
    table = box_table(boxes[order], 0)
    at_least = np.nextafter(
        torch.empty(0, dtype=table.dtype).numpy().dtype.type(iou_threshold), -np.inf
    )
    if at_least >= 0:
        better, worse = overlapping_pairs(table, float(at_least), 0)
    else:  # distant boxes count too
        over = _overlap_too_much(table, table, float(at_least), 0)
        better, worse = over.triu_(1).nonzero(as_tuple=True)
    by_rank = (better * len(order) + worse).sort()[1]
    better, worse = (t[by_rank].cpu() for t in (better, worse))
    begins = torch.searchsorted(better, torch.arange(len(order) + 1)).tolist()
    worse, names = worse.numpy(), order.cpu().numpy()
    free = np.ones(len(order), dtype=bool)
    groups = []
    for rank in range(len(order)):
        if free[rank]:
            members = worse[begins[rank] : begins[rank + 1]]
            members = members[free[members]]
            free[members] = False
            groups.append([int(names[rank]), *names[members].tolist()])
    return groups
