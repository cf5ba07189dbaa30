"""YOLO: a text file for each image, a line for each object, coordinates as shares of the image."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import PurePosixPath

import yaml

from attnpool_backbones.datasets.findings import Problem
from attnpool_backbones.own_data.class_lists import (
    FILES,
    ClassList,
    find_class_lists,
    lists_differ,
    lost_letters,
)
from attnpool_backbones.own_data.folder import (
    Folder,
    folder_of,
    shared_folders,
    split_of_path,
)
from attnpool_backbones.own_data.image_sizes import size_of
from attnpool_backbones.own_data.labels import Instance, LabelledImage, LabelledImages, problem
from attnpool_backbones.own_data.masks_of_objects import box_of

__all__ = ['NAME', 'find', 'read']

NAME = 'YOLO'
DIGITS = 2
"""Of a pixel: shares are written with six digits, so more of them would be noise."""
_ROW = re.compile(r'\s*\d+(\.0*)?(\s+[-+]?[\d.]+(e[-+]?\d+)?){4,}\s*$', re.IGNORECASE)
_YAML = ('.yaml', '.yml')
_NOTHING = ('', '~', 'null')
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

    Names of classes come from the ``names`` of a YAML file, or from a list of classes: of several
    that differ from the one nearest to a label file.
    """
    labels = LabelledImages(folder.root, NAME, [])
    every = [*_yaml_lists(folder), *_plain_lists(folder)]
    lists = _nearest_lists(every, files, labels)
    classes = dict.fromkeys(one.names for one in lists.values())
    described = [one for one in every if one.description and one.names in classes]
    splits: dict[str, str] = {}
    missing: dict[str, list[str]] = defaultdict(list)
    for one in described or [_List('')]:
        splits = _listed_splits(folder, one, missing) | splits
    labels.notes += [f'no image of {what} ({_some(said)})' for what, said in missing.items()]
    # of equal names the first counts
    keypoints = {one.names: _keypoint_numbers(one.description) for one in reversed(described)}
    twins = _twins(folder.images)
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
            same = twins[_without_ending(image)]
            if len(same) > 1 and folder.path(file).stat().st_size:
                words = f'{", ".join(same)}; keep the one that was labelled, or rename the other'
                labels.problems.append(problem('label file of several images', file, words))
        elif folder.path(file).stat().st_size:
            labels.problems.append(
                problem(
                    'label without an image', file, f'no image {stem}.*{folder.unread_kind(stem)}'
                )
            )
    without = 0
    numbers: set[int] = set()
    for image in sorted({*folder.photos, *by_image}):
        size = size_of(image, folder, labels)
        if size is None:
            continue
        file = by_image.get(image)
        own = lists[folder_of(file)] if file is not None and lists else None
        names = None if own is None else own.names
        points = keypoints.get(names, 0)
        if own is not None and own.description:
            points = _keypoint_numbers(own.description)
        rows = [] if file is None else list(_rows(folder, file, labels, points, names))
        without += file is None
        numbers.update(label for label, *_ in rows)
        instances = [_instance(names, *size, *row) for row in rows]
        labels.images.append(
            LabelledImage(
                image,
                *size,
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
    if lists:
        labels.classes = tuple(dict.fromkeys(chain(*classes)))
    else:
        labels.classes = tuple(f'class_{label}' for label in range(max(numbers, default=-1) + 1))
        labels.notes.append('no names of classes found (data.yaml, classes.txt)')
    return labels


def _without_ending(image: str) -> str:
    return PurePosixPath(image).with_suffix('').as_posix()


def _twins(images: Iterable[str]) -> dict[str, list[str]]:
    """Finds images that differ in nothing but their endings, by what they have in common."""
    twins = defaultdict(list)
    for image in images:
        twins[_without_ending(image)].append(image)
    return twins


def _image_path(file: str) -> str:
    """Where an image lies whose labels are in the sister folder ``labels``."""
    return '/'.join('images' if part == 'labels' else part for part in file.split('/'))


def _keypoint_numbers(description: dict) -> int:
    """Tells how many numbers of keypoints follow each box."""
    shape = description.get('kpt_shape')
    is_shape = isinstance(shape, list) and shape and all(str(n).isdecimal() for n in shape)
    return math.prod(map(int, shape)) if is_shape else 0


def _rows(
    folder: Folder,
    file: str,
    labels: LabelledImages,
    keypoints: int,
    names: Sequence[str] | None,
) -> Iterator[tuple[int, list[float], str]]:
    """Yields class, coordinates and place of each line that is well-formed."""
    for index, line in enumerate(folder.text(file).splitlines(), 1):
        words, where = line.split(), f'{file}, line {index}'
        if not words:
            continue
        tell = partial(_tell_malformed, labels, names, where, words[0])
        try:
            label, values = _class_number(words[0]), [float(word) for word in words[1:]]
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


def _class_number(word: str) -> int:
    """Reads a class id; tables of floats have it as 1.000000."""
    whole, point, zeros = word.partition('.')
    return int(whole if point and not zeros.strip('0') else word)


def _tell_malformed(
    labels: LabelledImages, names: Sequence[str] | None, where: str, number: str, words: object
) -> None:
    label = int(number) if number.isdecimal() else -1
    name = ''
    if names is None and label >= 0:
        name = f'class_{label}'
    elif names is not None and 0 <= label < len(names):
        name = names[label]
    labels.object_problems.append((name, problem('malformed label', where, words)))


def _instance(
    names: Sequence[str] | None,
    width: int,
    height: int,
    label: int,
    values: list[float],
    where: str,
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


@dataclass(frozen=True)
class _List:
    """Names of classes by number as a file says them, none if it is damaged."""

    file: str
    names: tuple[str, ...] = ()
    description: dict = field(default_factory=dict)
    """All else that a YAML file says."""
    faults: tuple[Problem, ...] = ()


def _nearest_lists(
    every: Sequence[_List], files: Sequence[str], labels: LabelledImages
) -> dict[str, _List]:
    """Finds the list of classes that counts for the label files of each folder, if any is whole.

    A YAML file above them comes first, then a list of names there, then those elsewhere. Of one
    kind the nearest counts.
    """
    whole = [one for one in every if one.names]
    found: dict[str, _List] = {}
    faults: dict[Problem, None] = {}
    passed: dict[Problem, None] = {}
    for place, file in {folder_of(file): file for file in files}.items():
        near = _nearest(every, file)
        whole_near = [one for one in near if one.names]
        faults.update(dict.fromkeys(fault for one in whole_near or near for fault in one.faults))
        if whole_near:
            passed.update(
                dict.fromkeys(fault for one in near if not one.names for fault in one.faults)
            )
        first, *others = whole_near or _nearest(whole, file) or [None]
        if first is None:
            continue
        found[place] = first
        # exports that were merged have a YAML file each and one above, for which labels may have
        # been numbered anew
        others = [one for one in others if _is_rival(one, first)]
        others += [
            one for one in whole if _is_yaml(one) and _is_yaml(first) and _is_above(one, file)
        ]
        other = next((one for one in others if one.names != first.names), None)
        if other is not None:
            faults[lists_differ(first.file, other.file)] = None
    labels.problems += faults
    labels.notes += [f'{fault.kind}, not used: {fault.item} ({fault.detail})' for fault in passed]
    for one in {one.file: one for one in found.values()}.values():
        twice = sorted({name for name in one.names if one.names.count(name) > 1})
        if twice:
            words = f'several numbers have the name {", ".join(twice)}, and are one class'
            labels.notes.append(f'{one.file}: {words}')
    if len({one.names for one in whole}) > 1:
        used = {one.file for one in found.values()}
        unused = [one.file for one in whole if one.file not in used]
        words = f', not of {_some(unused)}' if unused else ''
        labels.notes.append(f'lists of classes differ: names are those of {_some(used)}{words}')
    return found


def _is_yaml(one: _List) -> bool:
    return one.file.lower().endswith(_YAML)


def _is_above(one: _List, file: str) -> bool:
    return one.file.count('/') == shared_folders(one.file, file)


def _is_rival(one: _List, first: _List) -> bool:
    """Whether a list of the same place may be meant as well; some names of files say less."""
    same_name = PurePosixPath(one.file).name.lower() == PurePosixPath(first.file).name.lower()
    return _is_yaml(one) or same_name


def _some(files: Iterable[str]) -> str:
    first, *more = sorted(files)
    return f'{first} and {len(more)} more' if more else first


def _nearest(lists: Sequence[_List], file: str) -> list[_List]:
    """Returns the lists that come first for a label file; more than one where nothing tells."""

    def nearness(one: _List) -> tuple[bool, bool, int, int]:
        depth, shared = one.file.count('/'), shared_folders(one.file, file)
        return _is_above(one, file), _is_yaml(one), shared, -depth

    best = max(map(nearness, lists), default=None)
    return [one for one in lists if nearness(one) == best]


def _yaml_lists(folder: Folder) -> Iterator[_List]:
    for file in folder.with_suffix(*_YAML):
        try:
            # all words are text: a class may be called yes, null or 007
            content = yaml.load(folder.text(file), Loader=yaml.BaseLoader)
        except yaml.YAMLError as error:
            fault = problem('damaged file', file, ' '.join(str(error).split()))
            yield _List(file, faults=(fault,))
            continue
        names = content.get('names') if isinstance(content, dict) else None
        faults: list[Problem] = []
        if isinstance(names, dict):
            names = _by_number(names, file, faults)
        if isinstance(names, list) and names:
            count = content.get('nc', '')
            if count not in _NOTHING and _number_in(str(count)) != len(names):
                faults.append(
                    problem('classes do not fit', file, f'nc {count}, but {len(names)} names')
                )
            words = tuple(str(name).strip() for name in names)
            yield _List(file, words, content, (*faults, *lost_letters(file, words)))


def _plain_lists(folder: Folder) -> Iterator[_List]:
    for file, listed in find_class_lists(folder).items():
        names = _by_value(listed)
        if names:
            yield _List(file, tuple(names), faults=tuple(lost_letters(file, names)))


def _by_value(listed: ClassList) -> list[str]:
    """Brings the names of a list into the order of its numbers, if these count the classes."""
    if listed.values is None:
        return list(listed.names)
    names = dict(zip(listed.values, listed.names, strict=True))
    numbers = range(len(names))
    # other numbers are part of the names: 5 euro, 10 euro
    return [names[n] for n in numbers] if names.keys() == {*numbers} else list(listed.lines)


def _by_number(names: dict, file: str, faults: list[Problem]) -> list:
    """Brings names by class number into a list."""
    numbers = {_number_in(str(key)): name for key, name in names.items()}
    wanted = range(len(numbers))
    if set(numbers) != set(wanted):
        keys = ', '.join(map(str, names))
        faults.append(
            problem('classes do not fit', file, f'names {keys}, not 0 to {len(names) - 1}')
        )
    return [numbers.get(number, f'class_{number}') for number in wanted]


def _number_in(word: str) -> int | str:
    """Reads a class id; another word stays as it is."""
    try:
        return _class_number(word.strip())
    except ValueError:
        return word


def _listed_splits(folder: Folder, one: _List, missing: Mapping[str, list[str]]) -> dict[str, str]:
    """Reads split by image, from what a YAML file or lists ``train.txt`` say.

    Args:
        folder: The folder.
        one: With the content of the YAML file.
        missing: By what has no image the YAML files that name it; is extended.
    """
    splits = {}
    for key in _LISTS:
        entries = one.description.get(key, '')
        is_said = entries not in _NOTHING
        for entry in [entries] if isinstance(entries, str) else entries:
            split = 'val' if key == 'valid' else key
            place = entry if is_said else f'{key}.txt'
            images = list(_images_of(folder, one.description, str(place)))
            if not images and is_said:
                missing[f'{key}: {place}'].append(one.file)
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
