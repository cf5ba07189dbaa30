"""CVAT for images 1.1: one XML file with all images."""

from collections.abc import Iterator
from xml.etree import ElementTree

import numpy as np

from attnpool_backbones.own_data.folder import Folder, displayed_size, split_of_path
from attnpool_backbones.own_data.labels import (
    SPLITS,
    Instance,
    LabelledImage,
    LabelledImages,
    problem,
)
from attnpool_backbones.own_data.masks_of_objects import box_of, encode, joined
from attnpool_backbones.own_data.xml_files import malformed, number, root_tag

__all__ = ['NAME', 'find', 'read']

NAME = 'CVAT'
SHAPES = ('box', 'polygon', 'mask')
OTHERS = ('ellipse', 'polyline', 'points', 'cuboid', 'skeleton')


def find(folder: Folder) -> list[str]:
    """Lists the label files of this format."""
    return [file for file in folder.with_suffix('.xml') if root_tag(folder, file) == 'annotations']


def read(folder: Folder, files: list[str]) -> LabelledImages:
    """Reads boxes, polygons and masks; shapes of one group are one object.

    The classes are those of the task, in its order, used or not.
    """
    labels = LabelledImages(folder.root, NAME, [])
    names: list[str] = []
    for file in files:
        try:
            tree = ElementTree.fromstring(folder.path(file).read_bytes())
        except ElementTree.ParseError as error:
            labels.problems.append(problem('damaged label file', file, error))
            continue
        if tree.find('track') is not None:
            labels.problems.append(
                problem('labels of a video', file, "export the task as 'CVAT for images 1.1'")
            )
            continue
        names += [(label.findtext('name') or '').strip() for label in tree.iter('label')]
        for entry in tree.iterfind('image'):
            image = _image(entry, file, folder, labels)
            if image is not None:
                labels.images.append(image)
    used = labels.counts()
    labels.classes = tuple(dict.fromkeys([*filter(None, names), *sorted(used)]))
    return labels


def _image(
    entry: ElementTree.Element, file: str, folder: Folder, labels: LabelledImages
) -> LabelledImage | None:
    name = entry.get('name') or ''
    image = folder.find_image(name, file)
    if image is None:
        labels.problems.append(
            problem('label without an image', f'{file}, image {name}', 'not in the folder')
        )
        return None
    try:
        size = displayed_size(folder.path(image))
    except OSError as error:
        labels.problems.append(problem('unreadable image', image, error))
        return None
    told = f'{entry.get("width")}x{entry.get("height")}'
    if entry.get('width') and told != f'{size[0]}x{size[1]}':
        labels.problems.append(
            problem(
                'image of another size than annotated',
                image,
                f'{size[0]}x{size[1]}, annotated {told} in {file}',
            )
        )
        return None
    # the subset of a task is the split that its author chose
    subset = (entry.get('subset') or '').lower()
    split = subset if subset in SPLITS else split_of_path(image)
    return LabelledImage(image, *size, tuple(_objects(entry, file, name, size, labels)), split)


def _objects(
    entry: ElementTree.Element,
    file: str,
    name: str,
    size: tuple[int, int],
    labels: LabelledImages,
) -> Iterator[Instance]:
    groups: dict[object, list[Instance]] = {}
    for index, shape in enumerate(entry, 1):
        where = f'{file}, image {name}, shape {index}'
        if shape.tag in OTHERS:
            words = f'{shape.tag}; {", ".join(SHAPES)} can be trained on'
            labels.problems.append(problem('shape of another kind', where, words))
        if shape.tag not in SHAPES:
            continue
        try:
            instance = _instance(shape, where, size)
        except ValueError as error:
            labels.problems.append(malformed(where, error))
            continue
        group = int(shape.get('group_id') or 0)
        groups.setdefault((instance.name, ('group', group) if group else index), []).append(
            instance
        )
    for instances in groups.values():
        yield joined(instances, size)


def _instance(shape: ElementTree.Element, where: str, size: tuple[int, int]) -> Instance:
    name = (shape.get('label') or '').strip()
    if shape.tag == 'box':
        edges = tuple(number(shape.get(key)) for key in ('xtl', 'ytl', 'xbr', 'ybr'))
        if float(shape.get('rotation') or 0):
            raise ValueError('a turned box; draw it as a polygon')
        left, top, right, bottom = edges
        return Instance(name, (left, top, round(right - left, 6), round(bottom - top, 6)), where)
    if shape.tag == 'polygon':
        points = [point.split(',') for point in (shape.get('points') or '').split(';')]
        if len(points) < 3 or any(len(point) != 2 for point in points):
            raise ValueError(f'points {shape.get("points")!r}, not x,y;x,y;... of at least 3')
        outline = tuple(number(value) for point in points for value in point)
        return Instance(name, box_of(outline), where, polygons=(outline,))
    runs = [int(length) for length in (shape.get('rle') or '').split(',')]
    left, top, width, height = (
        int(number(shape.get(k))) for k in ('left', 'top', 'width', 'height')
    )
    if sum(runs) != width * height or min(runs) < 0:
        raise ValueError(f'rle of {sum(runs)} pixels, not {width} x {height}')
    if left < 0 or top < 0 or left + width > size[0] or top + height > size[1]:
        raise ValueError(f'mask of {width}x{height} at {left}, {top} sticks out')
    mask = np.zeros(size[::-1], dtype=bool)
    # rows, beginning with what is not the object
    part = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
    mask[top : top + height, left : left + width] = part
    return encode(name, mask, where)
