"""VGG Image Annotator (VIA 1 and 2) and makesense.ai: one JSON file with the regions of all images.

It is a project or an export: by a key of its own each image has its ``filename`` and ``regions``, a
list or, in version 1, a dict.
"""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from attnpool_backbones.own_data.folder import Folder, split_of_path
from attnpool_backbones.own_data.image_sizes import size_of
from attnpool_backbones.own_data.labels import Instance, LabelledImage, LabelledImages, problem
from attnpool_backbones.own_data.masks_of_objects import box_of, ellipse

__all__ = ['NAME', 'find', 'read']

NAME = 'VIA'
_PROJECT = '_via_img_metadata'
_CLASS = ('class', 'label', 'name', 'type', 'category', 'object')
"""Attributes of a region that are its class where there are several, the first first."""
_ALONE = 'object'
"""The class where no region has an attribute."""


def find(folder: Folder) -> list[str]:
    """Lists the label files of this format, whether or not they are whole."""
    wanted = {_PROJECT, 'shape_attributes'}
    return [file for file, keys in folder.json_keys.items() if not wanted.isdisjoint(keys)]


def read(folder: Folder, files: list[str]) -> LabelledImages:
    """Reads rectangles, polygons, circles and ellipses.

    The class of a region is its attribute, of several one that is called as a class is. Where no
    region of any file has an attribute, all are of one class.
    """
    labels = LabelledImages(folder.root, NAME, [])
    read_before: dict[str, list[tuple[str, list[Any]]]] = {}
    for file in files:
        try:
            content = json.loads(folder.text(file))
            entries = content.get(_PROJECT, content)
            found = [_entry(key, entry) for key, entry in entries.items()]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            words = f'without {error}' if isinstance(error, KeyError) else error
            labels.problems.append(problem('damaged label file', file, words))
            continue
        same = next((file for file, known in read_before.items() if known == found), None)
        if same is None:
            read_before[file] = found
        else:  # a project beside its export
            labels.notes.append(f'{file}: left out, it says the same as {same}')
    images = [(file, *entry) for file, found in read_before.items() for entry in found]
    attribute = _class_attribute([region for *_, regions in images for region in regions], labels)
    for file, name, regions in images:
        split = split_of_path(file, with_name=True)
        image = folder.find_image(name, file, split or '')
        if image is None:
            words = f'named in {file}{folder.unread_kind(name)}'
            labels.problems.append(problem('missing image', name, words, split))
            continue
        size = size_of(image, folder, labels)
        if size is None:
            continue
        instances = tuple(_instances(regions, f'{file}, {name}', attribute, labels))
        own = split or split_of_path(image)
        labels.images.append(LabelledImage(image, *size, instances, own))
    labels.notes += folder.without_labels(image.file for image in labels.images)
    labels.classes = tuple(sorted(labels.counts()))
    return labels


def _entry(key: str, entry: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """Returns name and regions of an image."""
    name, regions = entry['filename'], entry['regions']
    if not isinstance(name, str):
        raise TypeError(f'{key}: filename {name!r} is no text')
    return name, [*(regions.values() if isinstance(regions, dict) else regions)]


def _class_attribute(regions: list[Any], labels: LabelledImages) -> str | None:
    """Finds the attribute that tells the class; None if no region has one."""
    names: dict[str, None] = {}
    for region in regions:
        attributes = region.get('region_attributes') if isinstance(region, dict) else None
        names.update(dict.fromkeys(attributes if isinstance(attributes, dict) else ()))
    if not names and regions:
        labels.notes.append(f'no region has an attribute: all are of the class {_ALONE}')
    if len(names) < 2:
        return next(iter(names), None)
    called = [name for word in _CLASS for name in names if name.lower() == word]
    if called:
        others = [name for name in names if name != called[0]]
        words = f'the class is the attribute {called[0]}, not {", ".join(others)}'
        labels.notes.append(f'regions have several attributes: {words}')
        return called[0]
    words = f'{", ".join(names)}; call the one that is the class "class"'
    labels.problems.append(problem('several attributes that may be the class', labels.root, words))
    return next(iter(names))


def _instances(
    regions: list[Any], place: str, attribute: str | None, labels: LabelledImages
) -> Iterator[Instance]:
    for index, region in enumerate(regions, 1):
        where, name = f'{place}, region {index}', ''
        try:
            name = _class_of(region, attribute)
            yield _instance(region['shape_attributes'], name, where)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            words = f'without {error}' if isinstance(error, KeyError) else error
            labels.object_problems.append((name, problem('malformed label', where, words)))


def _class_of(region: Mapping[str, Any], attribute: str | None) -> str:
    if attribute is None:
        return _ALONE
    value = region['region_attributes'].get(attribute, '')
    if isinstance(value, dict):  # of check boxes
        ticked = [name for name, is_ticked in value.items() if is_ticked]
        if len(ticked) > 1:
            raise ValueError(f'{attribute}: {", ".join(ticked)}, not one class')
        value = ''.join(ticked)
    return str(value).strip()


def _instance(shape: Mapping[str, Any], name: str, where: str) -> Instance:
    kind = shape['name']
    if kind == 'rect':
        left, top, width, height = _numbers(shape, 'x', 'y', 'width', 'height')
        return Instance(name, (left, top, width, height), where)
    if kind == 'polygon':
        xs, ys = shape['all_points_x'], shape['all_points_y']
        if len(xs) != len(ys) or len(xs) < 3:
            raise ValueError(f'polygon of {len(xs)} x and {len(ys)} y, not 3 or more of each')
        outline = tuple(_finite(v) for point in zip(xs, ys, strict=True) for v in point)
    elif kind == 'circle':
        x, y, radius = _numbers(shape, 'cx', 'cy', 'r')
        outline = ellipse(x, y, radius, radius)
    elif kind == 'ellipse':
        turn = _finite(shape.get('theta', 0))
        outline = ellipse(*_numbers(shape, 'cx', 'cy', 'rx', 'ry'), turn)
    else:
        raise ValueError(
            f'shape {kind!r}; rect, polygon, circle and ellipse can be trained on, others not'
        )
    return Instance(name, box_of(outline), where, polygons=(outline,))


def _numbers(shape: Mapping[str, Any], *names: str) -> Iterator[float]:
    return map(_finite, [shape[name] for name in names])


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError('a coordinate is no finite number')
    return number
