"""Non-maximum suppression with a result of fixed size, as graphs need it."""

import torch
from torch import Tensor

from attnpool_backbones.ops.nms import nms

__all__ = ['ABSENT', 'padded_nms']

ABSENT = -1.0
"""Score of an entry that only fills a table."""


@torch.library.custom_op('attnpool_backbones::padded_nms', mutates_args=())
def padded_nms(
    boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float, count: int
) -> Tensor:
    """Suppresses boxes image by image.

    A file of :func:`torch.export.save` holds a call of this operator, an ONNX file the operator
    ``NonMaxSuppression``, which does the same.

    Args:
        boxes: B, N, 4: x1, y1, x2, y2. Boxes that are not to meet lie apart.
        scores: B, N.
        iou_threshold: Intersection over union above which the box of the lower score goes.
        score_threshold: Boxes with a score up to this one are not looked at.
        count: Most boxes of an image, P.

    Returns:
        B, P int64: indices of the kept boxes by falling score, then -1.
    """
    kept = scores.new_full((len(boxes), count), -1, dtype=torch.int64)
    for row, own, score in zip(kept, boxes, scores, strict=True):
        wanted = (score > score_threshold).nonzero().squeeze(1)
        best = wanted[nms(own[wanted], score[wanted], iou_threshold)[:count]]
        row[: len(best)] = best
    return kept


@padded_nms.register_fake
def _(
    boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float, count: int
) -> Tensor:
    return scores.new_empty((boxes.shape[0], count), dtype=torch.int64)
