"""Outlines and masks of objects as label maps, so that a segmentor learns of them."""

from collections.abc import Mapping

import numpy as np

from attnpool_backbones.class_colours import distinct_colours
from attnpool_backbones.command_line import UserError
from attnpool_backbones.datasets.bit_depth import IGNORED
from attnpool_backbones.own_data.class_lists import IGNORED_NAMES
from attnpool_backbones.own_data.labels import (
    LabelledImage,
    LabelledImages,
    LabelMapPair,
    LabelMaps,
)
from attnpool_backbones.own_data.masks_of_objects import area, decode

__all__ = ['as_label_maps', 'label_map_of']

BACKGROUND = 'background'
"""Class of the pixels that no object covers."""
BACKGROUND_NAMES = (BACKGROUND, '_background_')
"""Of classes whose outlines are drawn as background."""


def as_label_maps(labels: LabelledImages) -> LabelMaps:
    """Turns objects into label maps, which are drawn when they are written.

    Label 0 is background, the objects' classes follow in their order. Classes that are none, such
    as *void*, are ignored.

    Args:
        labels: Checked; every object has a mask.

    Raises:
        UserError: If an object has a box only, or there are more classes than a label map can hold.
    """
    bare = next((i for i in labels.instances() if not i.has_mask), None)
    if bare is not None:
        raise UserError(
            f'a segmentor learns the label of each pixel, but there are boxes without an outline '
            f'({bare.where}); take --head faster-rcnn, cascade-rcnn or retinanet'
        )
    names = [name for name in labels.classes if label_of(name, {}) is None]
    if len(names) > IGNORED - 1:
        raise UserError(f'{len(names)} classes and a background, but a label map holds {IGNORED}')
    classes = (BACKGROUND, *names)
    return LabelMaps(
        labels.root,
        labels.format,
        # a name for messages only
        [LabelMapPair(image.file, image.file, image.split) for image in labels.images],
        classes,
        distinct_colours(len(classes)),
        objects=tuple(labels.images),
        problems=list(labels.problems),
        notes=[
            *labels.notes,
            'label maps are drawn of the objects, the smaller ones over the larger ones; the rest '
            f'is {BACKGROUND}',
        ],
    )


def label_of(name: str, labels: Mapping[str, int]) -> int | None:
    """Returns the label of a class, None if it is not known."""
    if name.lower() in BACKGROUND_NAMES:
        return 0
    if name.lower() in IGNORED_NAMES:
        return IGNORED
    return labels.get(name)


def label_map_of(image: LabelledImage, classes: tuple[str, ...]) -> np.ndarray:
    """Draws the objects of an image, the smaller ones over the larger ones.

    Args:
        image: With its objects.
        classes: By label.

    Returns:
        height, width uint8.
    """
    size = image.width, image.height
    labels = {name: label for label, name in enumerate(classes)}
    drawn = np.zeros(size[::-1], np.uint8)
    for instance in sorted(image.instances, key=lambda one: -area(one, size)):
        drawn[decode(instance, size)] = label_of(instance.name, labels)
    return drawn
