"""Labels of objects as COCO files, one a split."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from attnpool_backbones.atomic_files import write_atomically
from attnpool_backbones.own_data.labels import SPLITS, Instance, LabelledImage, LabelledImages
from attnpool_backbones.own_data.masks_of_objects import area

__all__ = ['coco_content', 'places_of_annotations', 'write_coco_files']


def coco_content(labels: LabelledImages, split: str) -> dict[str, Any]:
    """Returns images, annotations and categories of a split, numbered from 1.

    Args:
        labels: Checked, with splits.
        split: ``'train'``, ``'val'`` or ``'test'``.
    """
    numbers = {name: number for number, name in enumerate(labels.classes, 1)}
    images, annotations = [], []
    for image in labels.images:
        if image.split != split:
            continue
        images.append(
            dict(id=len(images) + 1, file_name=image.file, width=image.width, height=image.height)
        )
        for instance in image.instances:
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=len(images),
                    category_id=numbers[instance.name],
                    **_annotation(instance, image),
                )
            )
    categories = [dict(id=number, name=name) for name, number in numbers.items()]
    return dict(images=images, annotations=annotations, categories=categories)


def _annotation(instance: Instance, image: LabelledImage) -> Mapping[str, Any]:
    size = image.width, image.height
    # a whole number is written as one: 12, not 12.0
    fields = dict(
        bbox=[_plain(value) for value in instance.box],
        area=_plain(area(instance, size) if instance.area is None else instance.area),
        iscrowd=int(instance.is_crowd),
    )
    if instance.run_lengths is not None:
        fields['segmentation'] = instance.run_lengths
    elif instance.polygons:
        fields['segmentation'] = [[_plain(v) for v in outline] for outline in instance.polygons]
    return fields


def _plain(value: float) -> float | int:
    return int(value) if float(value).is_integer() else float(value)


def places_of_annotations(labels: LabelledImages, split: str) -> dict[str, str]:
    """Tells where the annotations of :func:`coco_content` are from.

    Args:
        labels: Checked, with splits.
        split: ``'train'``, ``'val'`` or ``'test'``.

    Returns:
        What a check of the written file calls an annotation -> file and place of the label.
    """
    images = [image for image in labels.images if image.split == split]
    places = [(number, i.where) for number, image in enumerate(images, 1) for i in image.instances]
    return {
        f'annotation {index} of image {number}': where
        for index, (number, where) in enumerate(places, 1)
    }


def write_coco_files(
    labels: LabelledImages, folder: Path, write: Callable[[bytes, Path], None] = write_atomically
) -> dict[str, Path]:
    """Writes a file for each split that has images.

    Args:
        labels: Checked, with splits.
        folder: Made if it is missing.
        write: Puts content into a file. Default:
            :func:`~attnpool_backbones.atomic_files.write_atomically`.

    Returns:
        The files, by split.
    """
    files = {}
    for split in SPLITS:
        content = coco_content(labels, split)
        if content['images']:
            files[split] = folder / f'{split}.json'
            text = json.dumps(content, separators=(',', ':'), ensure_ascii=False)
            write((text + '\n').encode(), files[split])
    return files
