"""labelme: a JSON file for each image, with shapes of points in pixels."""

import base64
import binascii
import io
import json
import math
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from attnpool_backbones.datasets.limits import MAX_PIXELS
from attnpool_backbones.own_data.folder import Folder, open_picture, split_of_path
from attnpool_backbones.own_data.image_sizes import size_of
from attnpool_backbones.own_data.labels import Instance, LabelledImage, LabelledImages, problem
from attnpool_backbones.own_data.masks_of_objects import box_of, ellipse, encode, join_groups

__all__ = ['NAME', 'find', 'read']

NAME = 'labelme'


def find(folder: Folder) -> list[str]:
    """Lists the label files of this format, whether or not they are whole."""
    # behind the image itself where a tool has sorted the keys
    return [file for file, keys in folder.json_keys.items() if 'shapes' in keys]


def read(folder: Folder, files: list[str]) -> LabelledImages:
    """Reads rectangles, polygons, circles and masks; shapes of one group are one object."""
    labels = LabelledImages(folder.root, NAME, [])
    for file in files:
        try:
            content = json.loads(folder.text(file))
            shapes = content['shapes']
            if not isinstance(shapes, list):
                raise TypeError(f'shapes is {type(shapes).__name__}, not a list')
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            labels.problems.append(problem('damaged label file', file, error))
            continue
        stem = PurePosixPath(file).stem
        named = str(content.get('imagePath') or stem)
        image = folder.find_image(stem, file, named=named) or folder.find_image(named, file)
        if image is None:
            labels.problems.append(
                problem(
                    'label without an image',
                    file,
                    f'no image {named} in the folder{folder.unread_kind(named)}',
                )
            )
            continue
        told = content.get('imageWidth'), content.get('imageHeight')
        is_told = all(isinstance(side, int) and side > 0 for side in told)
        size = size_of(image, folder, labels, f'{told[0]}x{told[1]}' if is_told else '', file)
        if size is None:
            continue
        instances = join_groups(_instances(shapes, file, size, labels), size)
        labels.images.append(LabelledImage(image, *size, instances, split_of_path(image)))
    labels.notes += folder.without_labels(image.file for image in labels.images)
    labels.classes = tuple(sorted(labels.counts()))
    return labels


def _instances(
    shapes: list[Any], file: str, size: tuple[int, int], labels: LabelledImages
) -> Iterator[tuple[Any, Instance]]:
    """Yields what can be trained on, with the group."""
    for index, shape in enumerate(shapes, 1):
        where = f'{file}, shape {index}'
        try:
            instance = _instance(shape, where, size)
        except (KeyError, TypeError, ValueError, OSError, binascii.Error) as error:
            words = f'without {error}' if isinstance(error, KeyError) else error
            name = str(shape.get('label', '')).strip() if isinstance(shape, dict) else ''
            labels.object_problems.append((name, problem('malformed label', where, words)))
            continue
        yield shape.get('group_id'), instance


def _instance(shape: dict[str, Any], where: str, size: tuple[int, int]) -> Instance:
    label, kind = shape['label'], shape.get('shape_type') or 'polygon'
    name = '' if label is None else str(label).strip()
    points = [(float(x), float(y)) for x, y in shape['points']]
    if not all(math.isfinite(value) for point in points for value in point):
        raise ValueError('a coordinate is no finite number')
    flat = tuple(value for point in points for value in point)
    if kind == 'rectangle' and len(points) == 4:
        # as X-AnyLabeling writes it
        edges = [{round(value, 2) for value in values} for values in zip(*points, strict=True)]
        kind = 'rectangle' if max(map(len, edges)) <= 2 else 'polygon'
    elif kind in ('rotation', 'oriented_rectangle'):
        kind = 'polygon'
    elif kind in ('rectangle', 'circle', 'mask') and len(points) != 2:
        wanted = '2 or 4' if kind == 'rectangle' else '2'
        raise ValueError(f'{kind} of {len(points)} points, not {wanted}')
    if kind == 'rectangle':
        return Instance(name, box_of(flat), where)
    if kind == 'circle':
        (x, y), (edge_x, edge_y) = points
        radius = math.hypot(edge_x - x, edge_y - y)
        outline = ellipse(x, y, radius, radius)
        return Instance(name, box_of(outline), where, polygons=(outline,))
    if kind == 'polygon':
        if len(points) < 3:
            raise ValueError(f'polygon of {len(points)} points, at least 3 are needed')
        return Instance(name, box_of(flat), where, polygons=(flat,))
    if kind == 'mask':
        content = io.BytesIO(base64.b64decode(shape['mask']))
        with open_picture(content, max(MAX_PIXELS, size[0] * size[1])) as picture:
            part = np.asarray(picture.convert('L')) > 0
        left, top = (round(value) for value in points[0])
        mask = np.zeros(size[::-1], dtype=bool)
        if left < 0 or top < 0 or top + part.shape[0] > size[1] or left + part.shape[1] > size[0]:
            raise ValueError(f'mask of {part.shape[1]}x{part.shape[0]} at {points[0]} sticks out')
        mask[top : top + part.shape[0], left : left + part.shape[1]] = part
        return encode(name, mask, where)
    raise ValueError(
        f'shape {kind!r}; rectangle, rotation, polygon, circle and mask can be trained on, others '
        'not'
    )
