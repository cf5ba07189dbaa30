"""Detection of small objects in large images: overlapping slices (SAHI, arXiv 2202.06934)."""

from collections.abc import Sequence

import cv2
import numpy as np

from attnpool_backbones.command_line import UserError
from attnpool_backbones.inference.prediction import Detections, PlacedMasks

__all__ = ['merge', 'slices']

SAME = 0.5
"""Share of the smaller of two boxes in their overlap from which on they are one object."""


def slices(height: int, width: int, side: int, overlap: float) -> list[tuple[int, int, int, int]]:
    """Cuts an image into slices with sahi.

    Args:
        height: Of the image in pixels.
        width: Of the image in pixels.
        side: Of a slice in pixels.
        overlap: Of neighbours, as a share of the side.

    Returns:
        Left, top, right and bottom of each.

    Raises:
        UserError: If sahi is not installed.
    """
    try:
        from sahi.slicing import get_slice_bboxes
    except ImportError as error:
        raise UserError(
            f'--slice needs sahi, which cannot be imported ({error}): pip install sahi'
        ) from error
    boxes = get_slice_bboxes(height, width, side, side, False, overlap, overlap)
    return [tuple(box) for box in boxes]


def _placed(mask: np.ndarray, left: int, top: int) -> tuple[int, int, np.ndarray]:
    """Returns left and top in the image, and a copy of what of a slice's mask is not empty."""
    x, y, width, height = cv2.boundingRect(np.ascontiguousarray(mask).view(np.uint8))
    return left + x, top + y, mask[y : y + height, x : x + width].copy()


def merge(
    parts: Sequence[Detections],
    corners: Sequence[tuple[int, int]],
    name: str,
    height: int,
    width: int,
) -> Detections:
    """Puts the objects of slices into the image; the parts of one object become one.

    Args:
        parts: Of each slice.
        corners: Left and top of each slice in pixels.
        name: Of the image.
        height: Of the image in pixels.
        width: Of the image in pixels.
    """
    from sahi.postprocess.combine import batched_greedy_nmm

    shifted = [
        part.boxes + np.array([left, top, left, top], np.float32)
        for part, (left, top) in zip(parts, corners, strict=True)
    ]
    boxes = np.concatenate(shifted)
    scores = np.concatenate([part.scores for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    origin = [(number, index) for number, part in enumerate(parts) for index in range(len(part))]
    table = np.column_stack([boxes, scores, labels.astype(np.float32)])
    groups = batched_greedy_nmm(table, match_metric='IOS', match_threshold=SAME)
    groups = dict(sorted(groups.items(), key=lambda item: -scores[item[0]]))
    members = [[kept, *merged] for kept, merged in groups.items()]
    united = [
        np.concatenate([boxes[group, :2].min(0), boxes[group, 2:].max(0)]) for group in members
    ]
    masks = None
    if parts[0].masks is not None:
        masks = PlacedMasks(
            height, width,
            [
                [
                    _placed(parts[number].masks[index], *corners[number])
                    for number, index in (origin[member] for member in group)
                ]
                for group in members
            ],
        )  # fmt: skip
    kept = list(groups)
    return Detections(
        name, height, width, parts[0].classes, np.array(united, np.float32).reshape(-1, 4),
        scores[kept], labels[kept], masks,
    )  # fmt: skip
