"""Predictions drawn over images.

With OpenCV: mmdet's and mmseg's visualizers draw with matplotlib, which takes longer for a picture
than a small model for its prediction.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from attnpool_backbones.class_colours import distinct_colours
from attnpool_backbones.inference.prediction import Detections, Segmentation, Tagged
from attnpool_backbones.inference.tags import Tags

__all__ = ['draw', 'draw_boxes', 'draw_class_maps']

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_DARK, _LIGHT = (0, 0, 0), (255, 255, 255)


def draw(image: np.ndarray, prediction: Detections | Segmentation | Tagged) -> np.ndarray:
    """Draws a prediction.

    Args:
        image: H, W, 3 uint8 in blue, green, red; left as it is.
        prediction: Of that image.

    Returns:
        The drawing, of the same shape.
    """
    if isinstance(prediction, Segmentation):
        return draw_label_map(image, prediction.label_map, prediction.palette, prediction.hidden)
    if isinstance(prediction, Tagged):
        drawn = image.copy()
        _list_tags(drawn, prediction.tags, prediction.classes)
        return drawn
    texts = [
        f'{prediction.classes[label]} {score:.2f}'
        for label, score in zip(prediction.labels.tolist(), prediction.scores.tolist(), strict=True)
    ]
    return draw_boxes(
        image, prediction.boxes, prediction.labels, texts, len(prediction.classes), prediction.masks
    )


def draw_boxes(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    texts: Sequence[str],
    classes: int,
    masks: np.ndarray | None = None,
) -> np.ndarray:
    """Draws objects.

    Args:
        image: H, W, 3 uint8 in blue, green, red; left as it is.
        boxes: N, 4: left, top, right and bottom in pixels.
        labels: N; a class has one colour everywhere.
        texts: Of each box.
        classes: How many there are.
        masks: N, H, W bool.

    Returns:
        The drawing, of the same shape.
    """
    drawn = image.copy()
    colours = [colour[::-1] for colour in distinct_colours(classes)]
    if masks is not None:
        for mask, label in zip(masks, labels, strict=True):
            _tint(drawn, mask, colours[int(label)])
    side = max(image.shape[:2])
    width = max(1, round(side / 400))
    for box, label, text in reversed(list(zip(boxes.tolist(), labels, texts, strict=True))):
        left, top, right, bottom = (round(edge) for edge in box)
        colour = colours[int(label)]
        cv2.rectangle(drawn, (left, top), (right, bottom), colour, width)
        _write(drawn, text, (left, top), colour, max(0.35, side / 1600))
    return drawn


def _tint(image: np.ndarray, mask: np.ndarray, colour: Sequence[int]) -> None:
    """Mixes the pixels of a mask with a colour, in place."""
    # most of an image is in no single mask
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    if not width:
        return
    inside = slice(top, top + height), slice(left, left + width)
    mixed = ((np.arange(256)[:, None] + np.array(colour)) // 2).astype(np.uint8)[None]
    cv2.copyTo(cv2.LUT(image[inside], mixed), mask[inside].view(np.uint8), image[inside])


def _write(
    image: np.ndarray, text: str, corner: tuple[int, int], colour: Sequence[int], size: float
) -> None:
    """Writes a text on a bar above a corner, or below it at the upper edge."""
    (width, height), below = cv2.getTextSize(text, _FONT, size, 1)
    left = min(max(corner[0], 0), max(image.shape[1] - width, 0))
    base = corner[1] - below if corner[1] >= height + 2 * below else corner[1] + height + below
    upper_left, lower_right = (left, base - height - below), (left + width, base + below)
    cv2.rectangle(image, upper_left, lower_right, colour, cv2.FILLED)
    is_bright = 0.114 * colour[0] + 0.587 * colour[1] + 0.299 * colour[2] > 128
    cv2.putText(image, text, (left, base), _FONT, size, _DARK if is_bright else _LIGHT, 1,
                cv2.LINE_AA)  # fmt: skip


def draw_label_map(
    image: np.ndarray, label_map: np.ndarray, palette: np.ndarray, hidden: Sequence[int] = ()
) -> np.ndarray:
    """Draws labels of pixels.

    Args:
        image: H, W, 3 uint8 in blue, green, red; left as it is.
        label_map: H, W; labels beyond the palette leave the image as it is.
        palette: K, 3 in red, green, blue.
        hidden: Labels that leave the image as it is.

    Returns:
        The drawing, of the same shape.
    """
    kind = np.uint8 if len(palette) <= 256 else np.uint16
    label_map = np.ascontiguousarray(label_map, kind)
    colours = np.zeros((np.iinfo(kind).max + 1, 3), np.uint8)
    colours[: len(palette)] = np.asarray(palette, np.uint8)[:, ::-1]
    keep = np.ones(len(colours), np.uint8)
    keep[: len(palette)] = 0
    keep[list(hidden)] = 1
    if kind is np.uint8:
        # OpenCV's tables are several times as fast as indices of numpy
        painted = cv2.LUT(cv2.merge([label_map] * 3), colours[None])
        kept = cv2.LUT(label_map, keep)
    else:
        painted, kept = colours[label_map], keep[label_map]
    return cv2.copyTo(image, kept, cv2.addWeighted(image, 0.45, painted, 0.55, 0))


def draw_class_maps(image: np.ndarray, tags: Tags, classes: Sequence[str]) -> np.ndarray:
    """Draws where the classes are that an image has, each position in the colour of its class.

    A map is divided by its maximum; the colour is as dense as what is left.

    Args:
        image: H, W, 3 uint8 in blue, green, red; left as it is.
        tags: Of that image.
        classes: Names, by label; a class has one colour everywhere.

    Returns:
        The drawing, of the same shape, over the image in grey.
    """
    height, width = image.shape[:2]
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    shown = tags.present()
    if not shown:
        return grey
    colours = np.array(distinct_colours(len(classes)), np.float32)[shown, ::-1]
    size = [max(1, round(n * c)) for n, c in zip(tags.maps.shape[1:], tags.cell, strict=True)]
    strengths = []
    for values in np.maximum(tags.maps[shown], 0):
        fine = cv2.resize(values, size[::-1], interpolation=cv2.INTER_LINEAR)[:height, :width]
        below, right = height - fine.shape[0], width - fine.shape[1]
        fine = np.pad(fine, ((0, below), (0, right)), mode='edge')
        strengths.append(fine / max(fine.max(), 1e-12))
    strength = np.stack(strengths)  # classes, H, W
    density = 0.85 * strength.max(0)[..., None]
    drawn = (grey * (1 - density) + colours[strength.argmax(0)] * density).astype(np.uint8)
    _list_tags(drawn, tags, classes)
    return drawn


def _list_tags(image: np.ndarray, tags: Tags, classes: Sequence[str]) -> None:
    """Writes the classes that an image has below each other, in place."""
    colours = distinct_colours(len(classes))
    letters = max(0.35, max(image.shape[:2]) / 1600)
    row = round(24 * letters)
    for index, k in enumerate(tags.present()):
        text = f'{classes[k]} {tags.scores[k]:.2f}'
        _write(image, text, (0, row * (index + 1)), colours[k][::-1], letters)
