"""What an image, a category or an annotation of a COCO file must be for mmdet to load and score it.

mmdet needs some fields only under some configs: ``segmentation`` where masks are loaded,
``iscrowd`` where the file is scored.
"""

import reprlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from attnpool_backbones.datasets.run_lengths import run_length_fault

__all__ = [
    'CATEGORY',
    'IMAGE',
    'Uses',
    'annotation_problems',
    'entry_fault',
    'is_id',
    'is_number',
]

TOLERANCE = 1.0
"""How many pixels a box may reach over the border: annotations are rounded."""

Fields = Mapping[str, tuple[str, Callable[[Any], bool]]]


def is_number(value: Any) -> bool:
    """Tells whether a value is a finite number that fits into a float."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def is_id(value: Any) -> bool:
    """Tells whether a value can stand for an entry: a number or a text."""
    return is_number(value) or isinstance(value, str)


ID = ('a number or a text', is_id)
NUMBER = ('a number', is_number)
TEXT = ('a text', lambda value: isinstance(value, str))
FLAG = ('0 or 1', lambda value: value in (0, 1))
MASK = ('polygons or RLE', bool)

IMAGE: Fields = dict(id=ID, file_name=TEXT, width=NUMBER, height=NUMBER)
CATEGORY: Fields = dict(id=ID, name=TEXT)
ANNOTATION: Fields = dict(id=ID, image_id=ID, category_id=ID)


@dataclass(frozen=True)
class Uses:
    """What a config does with the annotations of a file.

    Args:
        masks: Whether a pipeline loads masks.
        metrics: By what predictions are scored against the file, e.g. ``{'bbox', 'segm'}``.
        classes: Names of the classes; annotations of other categories are left out.
    """

    masks: bool = False
    metrics: frozenset[str] = field(default_factory=frozenset)
    classes: frozenset[str] = field(default_factory=frozenset)


def entry_fault(entry: Any, fields: Fields) -> str:
    """Tells what is wrong with an entry, nothing if it has all fields.

    Args:
        entry: Anything that JSON can hold.
        fields: What each field must be, in words and as a check.
    """
    if not isinstance(entry, dict):
        return f'{reprlib.repr(entry)}, not a dict'
    lacking = [name for name in fields if name not in entry]
    faults = [f'without {", ".join(lacking)}'] if lacking else []
    for name, (words, is_right) in fields.items():
        if name in entry and not is_right(entry[name]):
            faults.append(f'{name} {reprlib.repr(entry[name])}, not {words}')
    return '; '.join(faults)


def annotation_problems(
    annotation: Any,
    sizes: Mapping[Any, tuple[float, float] | None],
    categories: Mapping[Any, str],
    uses: Uses,
) -> Iterator[tuple[str, str]]:
    """Yields what is wrong with an annotation: the kind of problem and the detail.

    Args:
        annotation: Anything that JSON can hold.
        sizes: Width and height of the images by id, None if unknown.
        categories: Names by id.
        uses: What the config does with it.
    """
    fault = entry_fault(annotation, _annotation_fields(annotation, categories, uses))
    if fault:
        yield 'malformed annotation entry', fault
    if not isinstance(annotation, dict):
        return
    category, image, size = annotation.get('category_id'), annotation.get('image_id'), None
    if _is_scored(annotation, categories, uses) and is_id(annotation.get('id')):
        yield from _id_problems(annotation['id'])
    if is_id(category) and category not in categories:
        yield 'wrong class id', f'{category} is no category'
    if is_id(image):
        size = sizes.get(image)
        if image not in sizes:
            other = int(image) if isinstance(image, str) and image.isdecimal() else str(image)
            words = f', but one has {other!r}: numbers and text differ' if other in sizes else ''
            yield 'annotation without an image', f'no image has that id{words}'
    area = annotation.get('area')
    if is_number(area) and area <= 0:
        yield 'annotation of no area', f'area {area}'
    yield from _box_problems(annotation.get('bbox'), size)
    yield from _mask_problems(annotation.get('segmentation'), size)


def _id_problems(number: Any) -> Iterator[tuple[str, str]]:
    # pycocotools keeps the ids of matches in an array of numbers, where 0 stands for no match
    if not is_number(number):
        yield 'annotation id that cannot be scored', f'id {number!r}, not a number'
    elif number == 0:
        yield (
            'annotation id 0 where it is scored',
            'its detection counts as wrong; count from 1',
        )


def _is_scored(annotation: Mapping[str, Any], categories: Mapping[Any, str], uses: Uses) -> bool:
    category = annotation.get('category_id')
    return bool(uses.metrics) and is_id(category) and categories.get(category) in uses.classes


def _annotation_fields(annotation: Any, categories: Mapping[Any, str], uses: Uses) -> Fields:
    fields = dict(ANNOTATION)
    if not isinstance(annotation, dict):
        return fields
    is_scored = _is_scored(annotation, categories, uses)
    # training leaves out what is marked so before it looks further; scoring does not know the mark
    is_loaded = not annotation.get('ignore', False)
    if is_loaded or is_scored:
        fields['area'] = NUMBER
    if is_scored:
        fields['iscrowd'] = FLAG
    if (uses.masks and is_loaded) or (is_scored and 'segm' in uses.metrics):
        fields['segmentation'] = MASK
    return fields


def _box_problems(box: Any, size: tuple[float, float] | None) -> Iterator[tuple[str, str]]:
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        yield 'malformed box', f'{reprlib.repr(box)}, not [x, y, width, height]'
    elif box[2] <= 0 or box[3] <= 0:
        yield 'box of no area', f'{box}'
    elif size is not None:
        width, height = size
        beyond = max(-box[0], -box[1], box[0] + box[2] - width, box[1] + box[3] - height)
        if beyond > TOLERANCE:
            yield 'box outside the image', f'{box} in an image of {width}x{height}'


def _mask_problems(mask: Any, size: tuple[float, float] | None) -> Iterator[tuple[str, str]]:
    if not mask:
        return
    if isinstance(mask, dict):
        yield from _run_length_problems(mask, size)
    elif isinstance(mask, list):
        fault = next(filter(None, map(_polygon_fault, mask)), None)
        if fault:
            yield 'malformed polygon', fault
        elif not all(map(_is_whole, mask)):
            # which mmdet leaves out, and the instance with it if it has no other
            yield 'polygon that is ignored', 'not an even number of at least six coordinates'
    else:
        yield 'malformed mask', f'{reprlib.repr(mask)}, not polygons or RLE'


def _run_length_problems(
    mask: Mapping[str, Any], size: tuple[float, float] | None
) -> Iterator[tuple[str, str]]:
    sides = mask.get('size')
    if size is not None and sides != [size[1], size[0]]:
        words = f'{reprlib.repr(sides)}, not {[size[1], size[0]]}'
        yield 'mask of another size than its image', words
    elif not isinstance(sides, list) or [type(side) for side in sides] != [int, int]:
        yield 'malformed mask', f'size {reprlib.repr(sides)}, not [height, width]'
    else:
        fault = run_length_fault(mask.get('counts'), sides[0] * sides[1])
        if fault:
            yield 'malformed mask', fault


def _polygon_fault(polygon: Any) -> str:
    if not isinstance(polygon, list):
        return f'polygon {reprlib.repr(polygon)}, not a list of coordinates [x, y, x, y, ...]'
    if not all(map(is_number, polygon)):
        wrong = next(value for value in polygon if not is_number(value))
        return f'coordinate {reprlib.repr(wrong)}, not a number'
    return ''


def _is_whole(polygon: list) -> bool:
    return len(polygon) >= 6 and len(polygon) % 2 == 0
