"""Anchors for boxes of unusual sizes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ['Anchors', 'choose_anchors', 'covered', 'octaves']

OVERLAP = 0.5
"""IoU of a box with the best anchor from which on it counts as covered, were both centred."""
ENOUGH = 0.97
"""Share of the boxes that the usual anchors have to cover to be kept."""
SIDES = (0.5, 1, 1.5, 2, 3, 4, 6, 8, 12)
"""Sides of anchors to try, in strides."""
RATIOS = ((0.5, 1.0, 2.0), (1.0,), (1.0, 2.0), (0.5, 1.0), (0.25, 0.5, 1.0, 2.0, 4.0))
GAIN = 0.005
"""Share of the boxes that an anchor more has to win."""


@dataclass(frozen=True)
class Anchors:
    """Shapes at each position of each map.

    Args:
        scales: Sides of square anchors, in strides.
        ratios: Height over width.
    """

    scales: tuple[float, ...]
    ratios: tuple[float, ...]

    def shapes(self, strides: Sequence[int]) -> np.ndarray:
        """Returns N, 2 widths and heights in pixels."""
        root = np.sqrt(np.array(self.ratios))
        sides = np.outer(strides, self.scales).reshape(-1, 1)
        return np.stack([sides / root, sides * root], axis=-1).reshape(-1, 2)


def covered(boxes: np.ndarray, anchors: Anchors, strides: Sequence[int]) -> float:
    """Returns the share of boxes that some anchor of the same centre overlaps by half.

    Args:
        boxes: N, 2 widths and heights in pixels of the resized images.
        anchors: The shapes.
        strides: Of the maps, in pixels.
    """
    shapes = anchors.shapes(strides)
    common = np.minimum(boxes[:, None], shapes[None]).prod(-1)
    union = boxes.prod(-1)[:, None] + shapes.prod(-1)[None] - common
    return float(((common / union).max(1) >= OVERLAP).mean())


def octaves(side: float, count: int) -> tuple[float, ...]:
    """Returns the sides of anchors within an octave from a side on, as RetinaNet has them."""
    return tuple(side * 2 ** (step / count) for step in range(count))


def choose_anchors(
    boxes: np.ndarray, usual: Anchors, strides: Sequence[int], per_octave: int | None = None
) -> Anchors | None:
    """Chooses anchors that cover the boxes.

    Args:
        boxes: N, 2 widths and heights in pixels of the resized images.
        usual: The anchors of the detector's base.
        strides: Of the maps, in pixels.
        per_octave: Anchors of an octave that a detector always has, None if it has none.

    Returns:
        The anchors; None if the usual ones do, or no others do better.
    """
    if not len(boxes):
        return None
    # a drawing of many boxes from all of them is as good, and quick
    boxes = boxes[np.linspace(0, len(boxes) - 1, min(len(boxes), 5000)).astype(int)]
    before = covered(boxes, usual, strides)
    if before >= ENOUGH:
        return None
    if per_octave is None:
        pairs = [*zip(SIDES, SIDES[1:], strict=False), *zip(SIDES, SIDES[2:], strict=False)]
        scales = [*((side,) for side in SIDES), *pairs]
    else:
        scales = [octaves(side, per_octave) for side in SIDES]
    tried = [Anchors(sides, ratios) for ratios in RATIOS for sides in scales]
    best, best_worth = None, before - GAIN * len(usual.scales) * len(usual.ratios)
    for anchors in tried:
        worth = covered(boxes, anchors, strides) - GAIN * len(anchors.scales) * len(anchors.ratios)
        if worth > best_worth + GAIN:
            best, best_worth = anchors, worth
    return best
