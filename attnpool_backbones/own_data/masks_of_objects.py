"""Masks and outlines of single objects."""

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from attnpool_backbones.own_data.labels import Instance

__all__ = ['area', 'box_of', 'decode', 'ellipse', 'encode', 'join_groups']

_CORNERS = 32  # of the polygon in place of an ellipse


def box_of(*polygons: Sequence[float]) -> tuple[float, float, float, float]:
    """Returns left, top, width and height in pixels of outlines x, y, x, y, ..."""
    xs = [value for polygon in polygons for value in polygon[0::2]]
    ys = [value for polygon in polygons for value in polygon[1::2]]
    left, top = min(xs), min(ys)
    # sums of decimal fractions end far beyond what anybody has drawn
    return left, top, round(max(xs) - left, 6), round(max(ys) - top, 6)


def ellipse(x: float, y: float, across: float, down: float, turn: float = 0.0) -> tuple[float, ...]:
    """Returns an outline x, y, x, y, ... of an ellipse, or of a circle.

    Args:
        x: Of the centre in pixels, from the left.
        y: The same from the top.
        across: Half of the axis that is horizontal before the turn.
        down: Half of the other one.
        turn: Clockwise, in radians. Default: none.
    """
    outline = []
    for corner in range(_CORNERS):
        angle = 2 * math.pi * corner / _CORNERS
        right, below = across * math.cos(angle), down * math.sin(angle)
        outline.append(x + right * math.cos(turn) - below * math.sin(turn))
        outline.append(y + right * math.sin(turn) + below * math.cos(turn))
    return tuple(outline)


def encode(name: str, mask: np.ndarray, where: str) -> Instance:
    """Makes an object of its mask.

    Args:
        name: Of its class.
        mask: H, W of the whole image.
        where: File and place in it.

    Returns:
        The object; its box has no size if the mask is empty.
    """
    from pycocotools import mask as coco_mask

    coded = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return Instance(
        name,
        tuple(float(value) for value in coco_mask.toBbox(coded)),
        where,
        run_lengths=dict(size=list(coded['size']), counts=coded['counts'].decode('ascii')),
    )


def _joined(instances: Sequence[Instance], size: tuple[int, int]) -> Instance:
    """Joins the parts of one object.

    Args:
        instances: The parts, of one class; one alone is returned as it is.
        size: Width and height of the image in pixels.
    """
    first = instances[0]
    if len(instances) == 1:
        return first
    corners = [(x, y, x + w, y + h) for x, y, w, h in (part.box for part in instances)]
    box = box_of(*corners)
    if all(part.polygons for part in instances):
        polygons = tuple(polygon for part in instances for polygon in part.polygons)
        return replace(first, box=box, polygons=polygons)
    if all(part.has_mask for part in instances):
        mask = np.any([decode(part, size) for part in instances], axis=0)
        return encode(first.name, mask, first.where)
    return replace(first, box=box, polygons=(), run_lengths=None)


def join_groups(
    shapes: Iterable[tuple[Hashable | None, Instance]], size: tuple[int, int]
) -> tuple[Instance, ...]:
    """Joins shapes of one group and class, in the order of their first ones.

    Args:
        shapes: With their groups; None: of no group.
        size: Width and height of the image in pixels.
    """
    groups: dict[Hashable, list[Instance]] = {}
    for number, (group, shape) in enumerate(shapes):
        key = number if group is None else ('group', group)
        groups.setdefault((shape.name, key), []).append(shape)
    return tuple(_joined(parts, size) for parts in groups.values())


def decode(instance: Instance, size: tuple[int, int]) -> np.ndarray:
    """Returns the mask H, W of an object in an image of that width and height."""
    from pycocotools import mask as coco_mask

    return coco_mask.decode(_coded(instance, size)).astype(bool)


def area(instance: Instance, size: tuple[int, int]) -> float:
    """Returns the pixels of an object's mask, or of its box if there is none."""
    if not instance.has_mask:
        return float(round(instance.box[2] * instance.box[3], 6))
    from pycocotools import mask as coco_mask

    return float(coco_mask.area(_coded(instance, size)))


def _coded(instance: Instance, size: tuple[int, int]) -> dict:
    from pycocotools import mask as coco_mask

    if instance.run_lengths is not None:
        return instance.run_lengths
    width, height = size
    polygons = [list(polygon) for polygon in instance.polygons]
    return coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
