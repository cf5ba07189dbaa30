"""What a model says about one image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from attnpool_backbones.inference.tags import Tags

__all__ = ['Detections', 'PlacedMasks', 'Segmentation', 'Tagged']


class PlacedMasks:
    """Masks of a large image, kept as far as they reach; an array of all may not fit the memory.

    ``masks[0]`` and iteration make one mask at a time, ``height, width`` bool; ``np.asarray`` makes
    all of them. Other indices select masks.

    Args:
        height: Of the image in pixels.
        width: Of the image in pixels.
        parts: Of each mask: left, top and pixels H, W bool of its parts.
    """

    def __init__(
        self, height: int, width: int, parts: Sequence[Sequence[tuple[int, int, np.ndarray]]]
    ) -> None:
        self.shape, self._parts = (len(parts), height, width), parts

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, index: Any) -> 'np.ndarray | PlacedMasks':
        if not isinstance(index, (int, np.integer)):
            numbers = np.arange(len(self))[index]
            return PlacedMasks(*self.shape[1:], [self._parts[number] for number in numbers])
        parts = self._parts[index]
        whole = np.zeros(self.shape[1:], bool)
        for left, top, mask in parts:
            whole[top : top + mask.shape[0], left : left + mask.shape[1]] |= mask
        return whole

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array([*self], dtype or bool).reshape(self.shape)


@dataclass(frozen=True)
class Detections:
    """Objects of one image, the surest first.

    Args:
        name: Of the image: its path below the source, or the number of a frame.
        height: Of the image in pixels.
        width: Of the image in pixels.
        classes: Names, by label.
        boxes: N, 4 float32: left, top, right and bottom in pixels of the image.
        scores: N float32, 0 to 1.
        labels: N int64.
        masks: N, height, width bool, of slices :class:`PlacedMasks`; None if the model gives none.
        tags: Of the image as a whole; None without an image-level head.
    """

    name: str
    height: int
    width: int
    classes: Sequence[str]
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: 'np.ndarray | PlacedMasks | None' = None
    tags: Tags | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def select(self, keep: np.ndarray) -> 'Detections':
        """Returns some of the objects.

        Args:
            keep: N bool, or numbers of the objects.
        """
        masks = None if self.masks is None else self.masks[keep]
        return replace(
            self, boxes=self.boxes[keep], scores=self.scores[keep], labels=self.labels[keep],
            masks=masks,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Returns what JSON can hold; masks in COCO's compressed form, tags if any."""
        objects = []
        coded = self.run_lengths()
        for index, (box, score, label) in enumerate(
            zip(self.boxes.tolist(), self.scores.tolist(), self.labels.tolist(), strict=True)
        ):
            entry = dict(
                **{'class': self.classes[label]},
                label=label,
                score=round(score, 5),
                box=[round(edge, 2) for edge in box],
            )
            if coded is not None:
                entry['mask'] = coded[index]
            objects.append(entry)
        return _line(self, objects=objects)

    def to_coco(self, image_id: int | str, category_ids: Sequence[int]) -> list[dict[str, Any]]:
        """Returns results as COCO's evaluation reads them.

        Args:
            image_id: Of the image in the annotation file.
            category_ids: By label.
        """
        coded = self.run_lengths()
        results = []
        for index, (left, top, right, bottom) in enumerate(self.boxes.tolist()):
            result = dict(
                image_id=image_id,
                category_id=category_ids[int(self.labels[index])],
                bbox=[left, top, right - left, bottom - top],
                score=float(self.scores[index]),
            )
            if coded is not None:
                result['segmentation'] = coded[index]
            results.append(result)
        return results

    def run_lengths(self) -> list[Mapping[str, Any]] | None:
        """Returns the masks in COCO's compressed form, None if there are none."""
        if self.masks is None:
            return None
        from pycocotools import mask as coco_mask

        # COCO counts down the columns
        turned, coded = np.empty((self.width, self.height), np.uint8), []
        for mask in self.masks:
            cv2.transpose(np.ascontiguousarray(mask).view(np.uint8), turned)
            run = coco_mask.encode(turned.T)
            coded.append(dict(size=list(run['size']), counts=run['counts'].decode('ascii')))
        return coded


@dataclass(frozen=True)
class Segmentation:
    """Labels of all pixels of one image.

    Args:
        name: Of the image: its path below the source, or the number of a frame.
        height: Of the image in pixels.
        width: Of the image in pixels.
        classes: Names, by label.
        palette: K, 3 uint8: red, green and blue of each class.
        label_map: height, width; uint8, or uint16 with more than 256 classes.
        hidden: Labels that are not to be drawn or told.
        tags: Of the image as a whole; None without an image-level head.
    """

    name: str
    height: int
    width: int
    classes: Sequence[str]
    palette: np.ndarray
    label_map: np.ndarray
    hidden: tuple[int, ...] = ()
    tags: Tags | None = None

    def shares(self) -> dict[str, float]:
        """Returns the share of the pixels by class, the largest first."""
        counts = np.bincount(self.label_map.reshape(-1), minlength=len(self.classes))
        order = np.argsort(-counts, kind='stable')
        return {
            self.classes[label]: float(counts[label] / self.label_map.size)
            for label in order.tolist()
            if counts[label] and label not in self.hidden
        }

    def to_dict(self) -> dict[str, Any]:
        """Returns what JSON can hold: the share of each class, and the tags if there are any."""
        shares = {name: round(share, 5) for name, share in self.shares().items()}
        return _line(self, shares=shares)


@dataclass(frozen=True)
class Tagged:
    """Which classes one image has, of a model that finds nothing else.

    Args:
        name: Of the image: its path below the source, or the number of a frame.
        height: Of the image in pixels.
        width: Of the image in pixels.
        classes: Names, by label.
        tags: Of the image.
    """

    name: str
    height: int
    width: int
    classes: Sequence[str]
    tags: Tags

    def to_dict(self) -> dict[str, Any]:
        """Returns what JSON can hold: the evidence for each class, the surest first."""
        return _line(self)


def _line(prediction: Detections | Segmentation | Tagged, **content: Any) -> dict[str, Any]:
    """Returns the image, its content, and the evidence for each class if there are tags."""
    line = dict(image=prediction.name, width=prediction.width, height=prediction.height, **content)
    if prediction.tags is not None:
        line['tags'] = prediction.tags.to_dict(prediction.classes)
    return line
