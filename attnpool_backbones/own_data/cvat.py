"""CVAT for images 1.1 and CVAT for video 1.1: one XML file with all images, or with tracks."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from xml.etree import ElementTree

import numpy as np

from attnpool_backbones.own_data.folder import (
    Folder,
    folder_of,
    shared_folders,
    split_of_path,
)
from attnpool_backbones.own_data.image_sizes import size_of
from attnpool_backbones.own_data.labels import Instance, LabelledImage, LabelledImages, problem
from attnpool_backbones.own_data.masks_of_objects import box_of, ellipse, encode, join_groups
from attnpool_backbones.own_data.xml_files import malformed, number, parse_xml, root_tag

__all__ = ['NAME', 'find', 'read']

NAME = 'CVAT'
SHAPES = ('box', 'polygon', 'ellipse', 'mask')
OTHERS = ('polyline', 'points', 'cuboid', 'skeleton')
_FRAME = re.compile(r'\d+$')


def find(folder: Folder) -> list[str]:
    """Lists the label files of this format."""
    return [file for file in folder.with_suffix('.xml') if root_tag(folder, file) == 'annotations']


def read(folder: Folder, files: list[str]) -> LabelledImages:
    """Reads boxes, polygons, ellipses and masks; shapes of one group are one object.

    The classes are those of the task, in its order, used or not. Of a video, the frames are the
    images whose names end with their numbers.
    """
    labels = LabelledImages(folder.root, NAME, [])
    names: list[str] = []
    for file in files:
        try:
            tree = parse_xml(folder, file)
        except ValueError as error:
            labels.problems.append(problem('damaged label file', file, error))
            continue
        names += [(label.findtext('name') or '').strip() for label in tree.iter('label')]
        for entry in tree.iterfind('image'):
            image = _image(entry, file, folder, labels)
            if image is not None:
                labels.images.append(image)
        if tree.find('track') is not None:
            labels.images += _frames(tree, file, folder, labels)
    labels.notes += folder.without_labels(image.file for image in labels.images)
    used = labels.counts()
    labels.classes = tuple(dict.fromkeys([*filter(None, names), *sorted(used)]))
    return labels


def _image(
    entry: ElementTree.Element, file: str, folder: Folder, labels: LabelledImages
) -> LabelledImage | None:
    name = entry.get('name') or ''
    subset = entry.get('subset') or ''
    image = folder.find_image(name, file, subset)
    if image is None:
        labels.problems.append(
            problem(
                'label without an image',
                f'{file}, image {name}',
                f'not in the folder{folder.unread_kind(name)}',
            )
        )
        return None
    told = f'{entry.get("width")}x{entry.get("height")}' if entry.get('width') else ''
    size = size_of(image, folder, labels, told, file)
    if size is None:
        return None
    # the subset of a task is the split that its author chose
    split = split_of_path(f'{subset}/image') or split_of_path(image)
    shapes = [
        _Shape(shape, f'{file}, image {name}, shape {index}', shape.get('label'),
               shape.get('group_id'))
        for index, shape in enumerate(entry, 1)
    ]  # fmt: skip
    instances = join_groups(_instances(shapes, size, labels), size)
    return LabelledImage(image, *size, instances, split)


def _frames(
    tree: ElementTree.Element, file: str, folder: Folder, labels: LabelledImages
) -> Iterator[LabelledImage]:
    """Yields the frames of a video, those without an object too."""
    if len({task for track in tree.iter('track') if (task := track.get('task_id'))}) > 1:
        words = 'the frames of all count from 0; export one task at a time'
        labels.problems.append(problem('labels of several videos', file, words))
        return
    shapes: dict[int, list[_Shape]] = defaultdict(list)
    for position, track in enumerate(tree.iter('track')):
        identity = track.get('id') or position
        for shape in track:
            frame = shape.get('frame') or ''
            where = f'{file}, track {identity}, frame {frame}'
            if not frame.isdigit():
                labels.problems.append(problem('malformed label', where, 'no number of a frame'))
            elif shape.get('outside') != '1':
                group = track.get('group_id')
                shapes[int(frame)].append(_Shape(shape, where, track.get('label'), group))
    first, last = _range_of(tree, shapes)
    images = _by_frame(folder.photos_for(file), file, first, last)
    for frame in sorted({*shapes, *(n for n in images if first <= n <= last)}):
        there = images.get(frame, [])
        if len(there) != 1:
            kind = 'frame without an image' if not there else 'frame with several images'
            words = ', '.join(there[:3]) or f'no image is named as frame_{frame:06d}.png is'
            labels.problems.append(problem(kind, f'{file}, frame {frame}', words))
            continue
        size = size_of(there[0], folder, labels)
        if size is not None:
            instances = join_groups(_instances(shapes[frame], size, labels), size)
            yield LabelledImage(there[0], *size, instances, split_of_path(there[0]))


def _by_frame(photos: Sequence[str], file: str, first: int, last: int) -> dict[int, list[str]]:
    """Finds the photos of each number.

    Of several those count whose folder has the most frames from the first to the last, and of these
    the ones that share the most folders with the label file.
    """
    images: dict[int, list[str]] = defaultdict(list)
    frames: dict[str, int] = defaultdict(int)
    for image in photos:
        found = _FRAME.search(PurePosixPath(image).stem)
        if found:
            number = int(found[0])
            images[number].append(image)
            frames[folder_of(image)] += first <= number <= last
    best = {}
    for number, there in images.items():
        fitness = [(frames[folder_of(image)], shared_folders(image, file)) for image in there]
        best[number] = [i for i, f in zip(there, fitness, strict=True) if f == max(fitness)]
    return best


def _range_of(tree: ElementTree.Element, frames: Iterable[int]) -> tuple[int, int]:
    """Returns the first and the last frame of a task, or of what is labelled."""
    told = [tree.findtext(f'.//{name}') or '' for name in ('start_frame', 'stop_frame')]
    if all(text.isdigit() for text in told):
        return int(told[0]), int(told[1])
    return min(frames, default=0), max(frames, default=-1)


@dataclass(frozen=True)
class _Shape:
    """A shape, where it is said, and the class and group that it or its track has."""

    element: ElementTree.Element
    where: str
    label: str | None
    group: str | None


def _instances(
    shapes: Sequence[_Shape], size: tuple[int, int], labels: LabelledImages
) -> Iterator[tuple[int | None, Instance]]:
    """Yields what can be trained on, with the group."""
    for shape in shapes:
        kind, name = shape.element.tag, (shape.label or '').strip()
        if kind in OTHERS:
            words = f'{kind}; {", ".join(SHAPES)} can be trained on'
            told = problem('shape of another kind', shape.where, words)
            labels.object_problems.append((name, told))
        if kind not in SHAPES:
            continue
        try:
            instance = _instance(shape, size)
        except ValueError as error:
            labels.object_problems.append((name, malformed(shape.where, error)))
            continue
        # 0 is no group
        yield int(shape.group or 0) or None, instance


def _instance(drawn: _Shape, size: tuple[int, int]) -> Instance:
    shape, where = drawn.element, drawn.where
    name = (drawn.label or '').strip()
    if shape.tag == 'box':
        edges = tuple(number(shape.get(key)) for key in ('xtl', 'ytl', 'xbr', 'ybr'))
        if float(shape.get('rotation') or 0) % 360:
            raise ValueError('a turned box; draw it as a polygon')
        left, top, right, bottom = edges
        return Instance(name, (left, top, round(right - left, 6), round(bottom - top, 6)), where)
    if shape.tag == 'polygon':
        points = [point.split(',') for point in (shape.get('points') or '').split(';')]
        if len(points) < 3 or any(len(point) != 2 for point in points):
            raise ValueError(f'points {shape.get("points")!r}, not x,y;x,y;... of at least 3')
        outline = tuple(number(value) for point in points for value in point)
        return Instance(name, box_of(outline), where, polygons=(outline,))
    if shape.tag == 'ellipse':
        sides = (number(shape.get(key)) for key in ('cx', 'cy', 'rx', 'ry'))
        outline = ellipse(*sides, turn=math.radians(number(shape.get('rotation') or '0')))
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
