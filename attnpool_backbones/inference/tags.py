"""What an image-level head says about one image, for files and pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from mmengine.structures import BaseDataElement

from attnpool_backbones.dense_models.image_tags import stitched

__all__ = ['Tags', 'tags_of']

PRESENT = 0.5
"""Evidence from which on an image is said to have a class."""


@dataclass(frozen=True)
class Tags:
    """Which classes an image has, and where they are.

    Args:
        scores: K float32, 0 to 1: the evidence for each class.
        maps: K, h, w float32 over the image from its upper left corner on.
        cell: Height and width of a position in pixels of the image.
        hidden: Labels that are not to be drawn or told.
    """

    scores: np.ndarray
    maps: np.ndarray
    cell: tuple[float, float]
    hidden: tuple[int, ...] = ()

    def to_dict(self, classes: Sequence[str]) -> dict[str, float]:
        """Returns the evidence by class, the surest first."""
        return {classes[k]: round(float(self.scores[k]), 5) for k in self.order()}

    def present(self) -> list[int]:
        """Returns the labels of the classes that the image has, at least the surest one."""
        order = self.order()
        return [k for k in order if self.scores[k] >= PRESENT] or order[:1]

    def order(self) -> list[int]:
        """Returns all labels that may be told, the surest first."""
        order = np.argsort(-self.scores, kind='stable').tolist()
        return [k for k in order if k not in self.hidden]


def tags_of(
    found: Sequence[BaseDataElement],
    corners: Sequence[tuple[int, int]],
    height: int,
    width: int,
    hidden: tuple[int, ...] = (),
) -> Tags:
    """Returns the tags of an image.

    Args:
        found: ``pred_tags`` of the image, or of each of its slices.
        corners: Left and top of each slice in pixels.
        height: Of the image in pixels.
        width: Of the image in pixels.
        hidden: Labels that are not to be drawn or told.
    """
    scores, maps, cell = found[0].scores, found[0].maps, found[0].cell
    if len(found) > 1:
        logits, canvas = stitched(
            torch.stack([one.scores.float().logit() for one in found])[:, None],
            [one.maps[None].float() for one in found],
            [(top, left) for left, top in corners],
            cell,
            (height, width),
        )
        scores, maps = logits[0].sigmoid(), canvas[0]
    arrays = (value.float().cpu().numpy() for value in (scores, maps))
    return Tags(*arrays, tuple(float(edge) for edge in cell), hidden)
