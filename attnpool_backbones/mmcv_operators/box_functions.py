"""mmcv's functions on boxes, in plain torch."""

from torch import Tensor

from attnpool_backbones.mmcv_operators.served import serve
from attnpool_backbones.ops import box_overlaps, soft_nms
from attnpool_backbones.ops import nms as nms_operator


@serve
def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Returns the indices of the kept boxes."""
    return nms_operator.nms(boxes, scores, iou_threshold, offset)


@serve
def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Returns the indices of the taken boxes, and writes the first rows of ``dets``."""
    name = soft_nms.METHODS[method]
    taken, indices = soft_nms.soft_nms(boxes, scores, iou_threshold, sigma, min_score, name, offset)
    dets[: len(taken)] = taken
    return indices


@serve
def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Returns the groups of boxes; ``dets`` are boxes with scores, N, 5."""
    return nms_operator.nms_groups(dets[:, :4], dets[:, 4], iou_threshold)


@serve
def bbox_overlaps(
    bboxes1: Tensor, bboxes2: Tensor, ious: Tensor, mode: int, aligned: bool, offset: int
) -> None:
    """Writes ``ious``: in mode 0 over the union, in mode 1 over the first boxes."""
    over = box_overlaps.OVERS[mode]
    ious.copy_(box_overlaps.box_overlaps(bboxes1, bboxes2, over, aligned, offset))
