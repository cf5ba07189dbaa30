"""Whether an exported file says what the model says."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from attnpool_backbones.inference.prediction import Detections, Segmentation

__all__ = ['Agreement', 'compare']

SCORE = 1e-3
"""Largest difference of scores and shares."""
PIXELS = 0.05
"""Largest difference of an edge of a box."""
MASK, FEW = 0.05, 8
"""Largest difference of two masks: a share of the larger one's pixels, or pixels where those are
more. Edges of boxes may differ, and with them pixels at the edge of a mask."""
PARTED = 0.01
"""Largest share of objects and pixels that may part company: where two scores or overlaps are equal
but for rounding, either may win."""


@dataclass
class Agreement:
    """How far the predictions of two models are apart.

    Args:
        images: That were compared.
        objects: Of the first model in all images.
        score: Largest difference of the scores of an object.
        box: Largest difference of an edge in pixels.
        mask: Largest share of a mask's pixels that differ.
        parted: Objects, or pixels, without a partner.
        total: Objects, or pixels, of both models.
        is_map: Whether pixels were compared, not objects.
    """

    images: int = 0
    objects: int = 0
    score: float = 0.0
    box: float = 0.0
    mask: float = 0.0
    parted: int = 0
    total: int = 0
    is_map: bool = False

    @property
    def holds(self) -> bool:
        """Whether the two are equal but for rounding."""
        return self.parted <= PARTED * self.total

    def __str__(self) -> str:
        if self.is_map:
            share = self.parted / self.total
            return f'{self.images} images, {share:.4%} of the pixels have another label'
        masks = f', masks by {self.mask:.3%} of their pixels' if self.mask else ''
        return (
            f'{self.images} images with {self.objects} objects: scores differ by up to '
            f'{self.score:.1e}, boxes by up to {self.box:.1e} pixels{masks}, {self.parted} objects '
            'are in one result only'
        )


def compare(
    ones: Iterable[Detections | Segmentation], others: Iterable[Detections | Segmentation]
) -> Agreement:
    """Compares predictions on the same images.

    Args:
        ones: Of the model; taken one by one.
        others: Of the file; taken one by one.
    """
    result = Agreement()
    for one, other in zip(ones, others, strict=True):
        result.images += 1
        if isinstance(one, Segmentation):
            result.is_map = True
            result.total += one.label_map.size
            result.parted += int((one.label_map != other.label_map).sum())
        else:
            _compare_objects(one, other, result)
    return result


def _compare_objects(one: Detections, other: Detections, result: Agreement) -> None:
    """Finds each object's partner: of its class, its score, its place and its mask."""
    result.objects += len(one)
    result.total += len(one) + len(other)
    free = np.ones(len(other), bool)
    for index in range(len(one)):
        scores = np.abs(other.scores - one.scores[index])
        edges = np.abs(other.boxes - one.boxes[index]).max(1, initial=0)
        masks = np.zeros(len(other))
        fits = free & (other.labels == one.labels[index]) & (scores <= SCORE) & (edges <= PIXELS)
        if one.masks is not None:
            for candidate in np.flatnonzero(fits):
                differ, size = _mask_difference(one.masks[index], other.masks[candidate])
                fits[candidate] = differ <= max(MASK * size, FEW)
                masks[candidate] = differ / max(size, 1)
        if not fits.any():
            result.parted += 1
            continue
        partner = int(np.flatnonzero(fits)[np.argmin(edges[fits])])
        free[partner] = False
        result.score = max(result.score, float(scores[partner]))
        result.box = max(result.box, float(edges[partner]))
        result.mask = max(result.mask, float(masks[partner]))
    result.parted += int(free.sum())


def _mask_difference(one: np.ndarray, other: np.ndarray) -> tuple[int, int]:
    """Returns how many pixels of two masks differ, and how many the larger one has."""
    return int((one != other).sum()), max(int(one.sum()), int(other.sum()))
