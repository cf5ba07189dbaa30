"""YOLO: a text file for each image, a line for each object, coordinates as shares of the image."""

import math
import re
from collections.abc import Iterator
from functools import partial
from pathlib import PurePosixPath

import yaml

from attnpool_backbones.own_data.class_lists import FILES, ClassList, find_class_list
from attnpool_backbones.own_data.folder import Folder, displayed_size, split_of_path
from attnpool_backbones.own_data.labels import Instance, LabelledImage, LabelledImages, problem
from attnpool_backbones.own_data.masks_of_objects import box_of

__all__ = ['NAME', 'find', 'read']

NAME = 'YOLO'
DIGITS = 2
"""Of a pixel: shares are written with six digits, so more of them would be noise."""
_ROW = re.compile(r'\s*\d+(\s+[-+]?[\d.]+(e[-+]?\d+)?){4,}\s*$', re.IGNORECASE)
_LISTS = ('train', 'val', 'valid', 'test')
_NO_LABELS = {*FILES, *(f'{name}.txt' for name in (*_LISTS, 'readme'))}
_PEEK = 50  # label files that are looked at to recognise the format


def find(folder: Folder) -> list[str]:
    """Lists the label files of this format: numbers, beside images or in a ``labels`` folder."""
    texts = [file for file in folder.with_suffix('.txt') if _is_beside_image(folder, file)]
    filled = [file for file in texts if folder.path(file).stat().st_size]
    # of many broken files one whole one is enough
    if any(_ROW.match(line) for file in filled[:_PEEK] for line in folder.text(file).splitlines()):
        return texts
    return []


def _is_beside_image(folder: Folder, file: str) -> bool:
    path = PurePosixPath(file)
    if folder.find_image(path.stem, file) is not None:
        return True
    return 'labels' in path.parts[:-1] and path.name.lower() not in _NO_LABELS


def read(folder: Folder, files: list[str]) -> LabelledImages:
    """Reads boxes and polygons; an image without a label file, or with an empty one, has none.

    Names of classes come from the ``names`` of a YAML file, or from a list of classes.
    """
    labels = LabelledImages(folder.root, NAME, [])
    names, description = _names(folder, labels)
    splits = _listed_splits(folder, description, labels)
    keypoints = _keypoint_numbers(description)
    by_image: dict[str, str] = {}
    for file in files:
        stem = PurePosixPath(file).stem
        image = folder.find_image(stem, _image_path(file)) or folder.find_image(stem, file)
        if image in by_image and folder.text(by_image[image]) != folder.text(file):
            labels.problems.append(
                problem('two label files for an image', file, f'{by_image[image]}, too: {image}')
            )
        elif image is not None:
            by_image[image] = file
        elif folder.path(file).stat().st_size:
            labels.problems.append(problem('label without an image', file, f'no image {stem}.*'))
    without = 0
    used: set[int] = set()
    for image in sorted({*folder.photos, *by_image}):
        try:
            width, height = displayed_size(folder.path(image))
        except OSError as error:
            labels.problems.append(problem('unreadable image', image, error))
            continue
        file = by_image.get(image)
        rows = [] if file is None else list(_rows(folder, file, labels, keypoints, names))
        without += file is None
        used.update(label for label, *_ in rows)
        instances = [_instance(names, width, height, *row) for row in rows]
        labels.images.append(
            LabelledImage(
                image,
                width,
                height,
                tuple(i for i in instances if i is not None),
                splits.get(image) if splits else split_of_path(image),
            )
        )
        if names is not None:
            labels.problems += [
                problem('wrong class id', where, f'{label}, not in 0..{len(names) - 1}')
                for label, _, where in rows
                if label >= len(names)
            ]
    if without:
        labels.notes.append(f'{without} images without a label file are taken as background')
    if names is None:
        labels.classes = tuple(f'class_{label}' for label in range(max(used, default=-1) + 1))
        labels.notes.append('no names of classes found (data.yaml, classes.txt)')
    else:
        labels.classes = tuple(names)
    return labels


def _image_path(file: str) -> str:
    """Where an image lies whose labels are in the sister folder ``labels``."""
    return '/'.join('images' if part == 'labels' else part for part in file.split('/'))


def _keypoint_numbers(description: dict) -> int:
    """Tells how many numbers of keypoints follow each box."""
    shape = description.get('kpt_shape')
    is_shape = isinstance(shape, list) and shape and all(isinstance(n, int) for n in shape)
    return math.prod(shape) if is_shape else 0


def _rows(
    folder: Folder,
    file: str,
    labels: LabelledImages,
    keypoints: int,
    names: list[str] | None,
) -> Iterator[tuple[int, list[float], str]]:
    """Yields class, coordinates and place of each line that is well-formed."""
    for index, line in enumerate(folder.text(file).splitlines(), 1):
        words, where = line.split(), f'{file}, line {index}'
        if not words:
            continue
        tell = partial(_tell_malformed, labels, names, where, words[0])
        try:
            label, values = int(words[0]), [float(word) for word in words[1:]]
        except ValueError as error:
            tell(error)
            continue
        if keypoints and len(values) == 4 + keypoints:
            del values[4:]
        wrong = [value for value in values if not math.isfinite(value)]
        if label < 0:
            labels.problems.append(problem('wrong class id', where, label))
        elif wrong:
            tell(f'{wrong[0]} is no finite number')
        elif len(values) != 4 and (len(values) < 6 or len(values) % 2):
            tell(
                f'{len(values)} numbers after the class, not 4 of a box or x, y of at least '
                '3 corners'
            )
        elif max(values) > 2:
            tell(f'{max(values):g}: pixels, not shares of 0 to 1?')
        else:
            yield label, values, where


def _tell_malformed(
    labels: LabelledImages, names: list[str] | None, where: str, number: str, words: object
) -> None:
    label = int(number) if number.isdecimal() else -1
    name = ''
    if names is None and label >= 0:
        name = f'class_{label}'
    elif names is not None and 0 <= label < len(names):
        name = names[label]
    labels.object_problems.append((name, problem('malformed label', where, words)))


def _instance(
    names: list[str] | None, width: int, height: int, label: int, values: list[float], where: str
) -> Instance | None:
    if names is not None and label >= len(names):
        return None
    name = f'class_{label}' if names is None else names[label]
    if len(values) == 4:
        x, y, w, h = values
        edges = ((x - w / 2) * width, (y - h / 2) * height, w * width, h * height)
        return Instance(name, tuple(round(edge, DIGITS) for edge in edges), where)
    polygon = tuple(
        round(value * side, DIGITS)
        for value, side in zip(values, (width, height) * (len(values) // 2), strict=True)
    )
    return Instance(name, box_of(polygon), where, polygons=(polygon,))


def _names(folder: Folder, labels: LabelledImages) -> tuple[list[str] | None, dict]:
    """Finds the names of the classes, and the YAML file that describes the folder."""
    for file in folder.with_suffix('.yaml', '.yml'):
        try:
            content = yaml.safe_load(folder.text(file))
        except yaml.YAMLError as error:
            labels.problems.append(problem('damaged file', file, ' '.join(str(error).split())))
            continue
        names = content.get('names') if isinstance(content, dict) else None
        if isinstance(names, dict):
            names = _by_number(names, file, labels)
        if isinstance(names, list) and names:
            count = content.get('nc', len(names))
            if count != len(names):
                labels.problems.append(
                    problem('classes do not fit', file, f'nc {count}, but {len(names)} names')
                )
            return [str(name) for name in names], content
    listed = find_class_list(folder)
    return (None if listed is None else _by_value(listed)), {}


def _by_value(listed: ClassList) -> list[str]:
    """Brings the names of a list into the order of its numbers, if these count the classes."""
    if listed.values is None:
        return list(listed.names)
    names = dict(zip(listed.values, listed.names, strict=True))
    numbers = range(len(names))
    # other numbers are part of the names: 5 euro, 10 euro
    return [names[n] for n in numbers] if names.keys() == {*numbers} else list(listed.lines)


def _by_number(names: dict, file: str, labels: LabelledImages) -> list:
    """Brings names by class number into a list."""
    numbers = {str(key).strip(): name for key, name in names.items()}
    wanted = [str(number) for number in range(len(numbers))]
    if set(numbers) != set(wanted):
        keys = ', '.join(map(str, names))
        labels.problems.append(
            problem('classes do not fit', file, f'names {keys}, not 0 to {len(names) - 1}')
        )
    return [numbers.get(number, f'class_{number}') for number in wanted]


def _listed_splits(folder: Folder, description: dict, labels: LabelledImages) -> dict[str, str]:
    """Reads split by image, from what a YAML file or lists ``train.txt`` say."""
    splits = {}
    for key in _LISTS:
        entries = description.get(key) or f'{key}.txt'
        for entry in [entries] if isinstance(entries, str) else entries:
            split = 'val' if key == 'valid' else key
            images = list(_images_of(folder, description, str(entry)))
            if not images and key in description:
                labels.notes.append(f'no image of {key}: {entry} (YAML file)')
            for image in images:
                # an image that is said to be of two splits is trained on
                splits.setdefault(image, split)
    return splits


def _images_of(folder: Folder, description: dict, entry: str) -> Iterator[str]:
    base = str(description.get('path') or '')
    tail = PurePosixPath(entry.replace('\\', '/')).as_posix().lstrip('./')
    texts = folder.with_suffix('.txt')
    lists = [file for file in texts if file in (tail, f'{base}/{tail}')]
    if not lists:  # where the folder has moved since, its end is still the same
        ends = [file for file in texts if f'/{tail}'.endswith(f'/{file}')]
        lists = [max(ends, key=len)] if ends else []
    for file in lists:
        for line in folder.text(file).splitlines():
            image = folder.find_image(line.strip(), line.strip()) if line.strip() else None
            if image is not None:
                yield image
    if not lists and tail and not tail.endswith('.txt'):
        for end in _ends(tail.rstrip('/')):
            found = [
                image
                for image in folder.photos
                if any(f'/{end}/' in f'/{name}' for name in folder.names_of(image))
            ]
            if found:
                yield from found
                return


def _ends(path: str) -> Iterator[str]:
    """Yields a path, and its ends that still name a split, the longest first."""
    yield path
    for start in range(1, path.count('/') + 1):
        end = '/'.join(path.split('/')[start:])
        if split_of_path(f'{end}/image'):
            yield end
