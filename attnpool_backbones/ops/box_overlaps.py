"""Overlaps of boxes as mmcv defines them."""

import torch
from torch import Tensor

from attnpool_backbones.ops.formula import operator

OVERS = ('iou', 'iof')
"""By mmcv's numbers 0 and 1."""


@operator
def box_overlaps(
    first: Tensor, second: Tensor, over: str = 'iou', aligned: bool = False, offset: int = 0
) -> Tensor:
    """Returns intersections over unions, or over the first boxes.

    Args:
        first: M, 4: x1, y1, x2, y2.
        second: N, 4.
        over: ``'iou'``: over the union; ``'iof'``: over the area of the first box (foreground).
            Default: ``'iou'``.
        aligned: Whether to compare boxes of the same index only. Default: False.
        offset: 0, or 1 where x2 and y2 are the last pixels inside. Default: 0.

    Returns:
        M, N, or M if ``aligned``.
    """
    if over not in OVERS:
        raise ValueError(f'unknown over {over!r}, choose from {OVERS}')
    if not aligned:
        first = first.unsqueeze(1)
    begin, end = (
        torch.maximum(first[..., :2], second[..., :2]),
        torch.minimum(first[..., 2:], second[..., 2:]),
    )
    shared = (end - begin + offset).clamp(min=0).prod(-1)
    first_area, second_area = ((b[..., 2:] - b[..., :2] + offset).prod(-1) for b in (first, second))
    return shared / (first_area if over == 'iof' else first_area + second_area - shared)
