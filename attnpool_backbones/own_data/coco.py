"""COCO: one JSON file for all images, or one for each split."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import PurePosixPath
from typing import Any

from attnpool_backbones.datasets.coco_entries import (
    CATEGORY,
    IMAGE,
    Uses,
    annotation_problems,
    entry_fault,
    is_id,
    is_number,
)
from attnpool_backbones.datasets.coco_file import encoding_fault
from attnpool_backbones.datasets.findings import Problem
from attnpool_backbones.own_data.folder import Folder, split_of_path
from attnpool_backbones.own_data.labels import Instance, LabelledImage, LabelledImages, problem
from attnpool_backbones.own_data.other_programs import program_of

__all__ = ['NAME', 'find', 'has_objects', 'read']

NAME = 'COCO'
_HEAD = 65536  # bytes
_LEAST = 6  # coordinates of an outline
_LISTS = ('images', 'annotations', 'categories')
_OF_OBJECTS = ('category_id', 'bbox')
# a box kind is told once, for all formats alike, when boxes are checked
_TOLD_LATER = ('box of no area', 'box outside the image', 'annotation of no area')
_SHOWN = 5  # files of other contents, in a note


def find(folder: Folder) -> list[str]:
    """Lists the label files of this format, whether or not they are whole."""
    # of a file that was cut off the last list may be lost
    return [file for file, keys in folder.json_keys.items() if len(keys.intersection(_LISTS)) >= 2]


def has_objects(folder: Folder, files: Sequence[str]) -> bool:
    """Tells whether some file may label objects, unlike captions and lists of images."""
    for file in files:
        others: list[Problem] = []
        labels = LabelledImages(folder.root, NAME, [])
        _content(folder.path(file).read_bytes(), file, labels, others)
        if not others:
            return True
    return False


def read(folder: Folder, files: list[str]) -> LabelledImages:
    """Reads one file or several; without the mark ``area`` an annotation has that of its mask.

    Files of something else than objects, such as COCO's captions, are left out and noted.
    """
    labels = LabelledImages(folder.root, NAME, [])
    coco_files: dict[str, tuple[str, str]] = {}
    is_usable = True
    orders: list[list[str]] = []
    used: set[str] = set()
    others: list[Problem] = []
    listed: dict[str, tuple[str | None, set[str]]] = {}
    for file in files:
        split = split_of_path(file, with_name=True)
        raw = folder.path(file).read_bytes()
        content = _content(raw, file, labels, others)
        if content is None:
            continue
        is_usable &= not _strip_names(content['categories'])
        before = len(labels.problems), len(labels.images)
        prefix = _read_file(folder, file, content, split, labels)
        images = {image.file for image in labels.images[before[1] :]}
        again = _file_of_same_images(listed, split, images)
        if again is not None:
            del labels.images[before[1] :]
            words = f'{len(images)} images, such as {min(images)}; join the files, or keep one'
            labels.problems.append(
                problem('two files label the same images', f'{again}, {file}', words, split)
            )
        listed[file] = split, images
        orders.append(_add_category_names(content, used))
        fits = prefix is not None and len(labels.problems) == before[0] and not encoding_fault(raw)
        is_usable &= fits and split is not None and split not in coco_files
        if fits and split is not None:
            coco_files[split] = file, prefix
    labels.notes += folder.without_labels(image.file for image in labels.images)
    labels.classes = tuple(name for name in dict.fromkeys(chain(*orders)) if name in used)
    # mmdet counts labels by the order in each file
    is_usable &= all(
        [name for name in order if name in used] == list(labels.classes) for order in orders
    )
    if is_usable and {'train', 'val'} <= set(coco_files):
        labels.coco_files = coco_files
    if not listed:
        labels.problems += others
    elif others:
        cases = [f'{other.item} ({other.detail})' for other in others[:_SHOWN]]
        more = ', ...' if len(others) > _SHOWN else ''
        labels.notes.append(f'file without objects, left out: {", ".join(cases)}{more}')
    return labels


def _file_of_same_images(
    listed: Mapping[str, tuple[str | None, set[str]]], split: str | None, images: set[str]
) -> str | None:
    """Finds a file of the split that lists all images of another, or of which all are there."""
    for file, (other_split, others) in listed.items():
        if others and images and other_split == split and (images <= others or others <= images):
            return file
    return None


def _content(
    raw: bytes, file: str, labels: LabelledImages, others: list[Problem]
) -> dict[str, list[Any]] | None:
    try:
        content = json.loads(raw)
        lacking = [name for name in _LISTS if name not in content]
        lists = {name: content[name] for name in _LISTS if name in content}
    except (ValueError, TypeError, RecursionError) as error:
        labels.problems.append(problem('damaged label file', file, error))
        return None
    words = f'without {", ".join(lacking)}' if lacking else 'annotations without a class or a box'
    if not _may_have_objects(lists, lacking):
        program = program_of(file, raw[:_HEAD])
        words += f' ({program})' if program else ''
        others.append(problem('file without objects', file, words))
        return None
    if lacking:
        labels.problems.append(problem('damaged label file', file, words))
        return None
    wrong = [name for name, entries in lists.items() if not isinstance(entries, list)]
    if wrong:
        labels.problems.append(
            problem('damaged label file', file, f'{", ".join(wrong)} is no list')
        )
        return None
    return lists


def _may_have_objects(lists: Mapping[str, Any], lacking: Sequence[str]) -> bool:
    """Tells labels, also incomplete ones, from captions, lists of images and other tools' files."""
    annotations = lists.get('annotations')
    if not isinstance(annotations, list) or not annotations:
        return not lacking
    return any(isinstance(a, dict) and not a.keys().isdisjoint(_OF_OBJECTS) for a in annotations)


def _strip_names(categories: list[Any]) -> bool:
    """Takes the blanks around names away, and tells whether there were any."""
    padded = [
        entry
        for entry in categories
        if not entry_fault(entry, CATEGORY) and entry['name'] != entry['name'].strip()
    ]
    for entry in padded:
        entry['name'] = entry['name'].strip()
    return bool(padded)


def _add_category_names(content: Mapping[str, list[Any]], used: set[str]) -> list[str]:
    """Returns the names of a file's categories in their order, and adds those that objects have.

    Categories without an annotation in any file are often supercategories that a tool wrote.
    """
    categories = [entry for entry in content['categories'] if not entry_fault(entry, CATEGORY)]
    annotations = [entry for entry in content['annotations'] if isinstance(entry, dict)]
    numbers = {a['category_id'] for a in annotations if is_id(a.get('category_id'))}
    used.update(entry['name'] for entry in categories if entry['id'] in numbers)
    return [entry['name'] for entry in categories]


def _read_file(
    folder: Folder,
    file: str,
    content: Mapping[str, list[Any]],
    split: str | None,
    labels: LabelledImages,
) -> str | None:
    """Adds the images of a file.

    Returns:
        The folder that its file names start from; None if there is no single one, or if mmdet
        cannot train on the annotations and score them as they are.
    """
    categories, entries = {}, {}
    for kind, fields, found in (
        ('categories', CATEGORY, categories),
        ('images', IMAGE, entries),
    ):
        for index, entry in enumerate(content[kind]):
            fault = entry_fault(entry, fields)
            if fault:
                labels.problems.append(
                    problem('malformed entry', f'{file}, {kind}[{index}]', fault, split)
                )
            elif entry['id'] in found:
                labels.problems.append(
                    problem(
                        'id used more than once', f'{file}, {kind}[{index}]', entry['id'], split
                    )
                )
            else:
                found[entry['id']] = entry
    names_by_id = {number: entry['name'] for number, entry in categories.items()}
    # also of images whose entries are malformed, which is told
    sizes = {e['id']: None for e in content['images'] if isinstance(e, dict) and is_id(e.get('id'))}
    sizes |= {number: (entry['width'], entry['height']) for number, entry in entries.items()}
    instances, is_whole = _instances(
        file, content['annotations'], sizes, names_by_id, labels, split
    )
    prefixes = set()
    names = [entry['file_name'] for entry in entries.values()]
    common = _prefix(folder.photos_for(file, split), names, split)
    for number, entry in entries.items():
        image = common + entry['file_name']
        if image not in folder.image_set:
            image = folder.find_image(entry['file_name'], file, split or '')
        if image is None:
            labels.problems.append(
                problem(
                    'missing image',
                    entry['file_name'],
                    f'named in {file}{folder.unread_kind(entry["file_name"])}',
                    split,
                )
            )
            continue
        name = PurePosixPath(entry['file_name']).as_posix()
        prefixes.add(image.removesuffix(name) if f'/{image}'.endswith(f'/{name}') else None)
        size = int(entry['width']), int(entry['height'])
        own = split or split_of_path(image)
        labels.images.append(LabelledImage(image, *size, tuple(instances[number]), own))
    return prefixes.pop() if len(prefixes) == 1 and is_whole else None


def _prefix(photos: Sequence[str], names: Sequence[str], split: str | None) -> str:
    """Finds the folder that most file names start from.

    One of the split comes first: another split may number its photos in the same way, and have more
    of them.
    """
    by_name = defaultdict(list)
    for name in names:
        by_name[PurePosixPath(name).name].append(name)
    starts: Counter[str] = Counter()
    for image in photos:
        for name in by_name.get(PurePosixPath(image).name, ()):
            if f'/{image}'.endswith(f'/{name}'):
                starts[image.removesuffix(name)] += 1

    def fitness(start: str) -> tuple[bool, int, bool]:
        is_of_split = split_of_path(f'{start}image') == split
        return split is not None and is_of_split, starts[start], is_of_split

    return max(starts, key=fitness, default='')


def _instances(
    file: str,
    annotations: list[Any],
    sizes: Mapping[Any, tuple[float, float] | None],
    names: Mapping[Any, str],
    labels: LabelledImages,
    split: str | None,
) -> tuple[Mapping[Any, list[Instance]], bool]:
    """Collects the objects by image, and tells whether mmdet can take them as they are."""
    instances: Mapping[Any, list[Instance]] = defaultdict(list)
    as_scored = Uses(metrics=frozenset({'bbox'}), classes=frozenset(names.values()))
    ids = {a['id'] for a in annotations if isinstance(a, dict) and is_id(a.get('id'))}
    is_whole = len(ids) == len(annotations)
    are_masks = _marks_masks_as_crowds(annotations)
    masks = shortened = 0
    for index, annotation in enumerate(annotations):
        where = f'{file}, annotations[{index}]'
        if isinstance(annotation, dict) and is_id(annotation.get('id')):
            where = f'{file}, annotation {annotation["id"]} of image {annotation.get("image_id")}'
        found = list(annotation_problems(annotation, sizes, names, as_scored))
        is_whole &= not found
        if isinstance(annotation, dict) and annotation.get('ignore'):
            continue
        if are_masks and isinstance(annotation, dict) and annotation.get('iscrowd'):
            annotation = {**annotation, 'iscrowd': 0}
            masks += 1
        if found:
            kept = _without_short_parts(annotation)
            shortened += kept is not annotation
            annotation = kept
            completed = _completed(annotation, index)
            found = list(annotation_problems(completed, sizes, names, Uses()))
            crowd = annotation.get('iscrowd') if isinstance(annotation, dict) else None
            if crowd not in (None, 0, 1):
                found.append(('malformed annotation entry', f'iscrowd {crowd!r}, not 0 or 1'))
        if _is_turned(annotation):
            words = f'a box turned by {annotation["attributes"]["rotation"]:g} degrees; draw it as '
            found.append(('malformed label', f'{words}a polygon'))
            is_whole = False
        name = _class_of(annotation, names)
        labels.object_problems += [
            (name, problem(kind, where, detail, split))
            for kind, detail in found
            if kind not in _TOLD_LATER
        ]
        if all(kind in _TOLD_LATER for kind, _ in found):
            instance = _instance(annotation, names, where)
            instances[annotation['image_id']].append(instance)
    if masks:
        labels.notes.append(
            f'{file}: {masks} masks are objects, though marked as crowds: CVAT marks all masks so'
        )
    if shortened:
        labels.notes.append(
            f'{file}: parts of fewer than 3 corners left out of the outlines of {shortened} objects'
        )
    return instances, is_whole and not masks


def _marks_masks_as_crowds(annotations: list[Any]) -> bool:
    """Whether the marks of crowds are CVAT's, which has them for all masks and nothing else.

    So has COCO itself, where they mean crowds, but no annotation there has attributes.
    """
    return all(
        isinstance(a.get('attributes'), dict)
        and 'occluded' in a['attributes']
        and bool(a.get('iscrowd')) == isinstance(a.get('segmentation'), dict)
        for a in annotations
        if isinstance(a, dict)
    )


def _without_short_parts(annotation: Any) -> Any:
    """Drops parts of an outline that have no area, as mmdet does, if others remain."""
    mask = annotation.get('segmentation') if isinstance(annotation, dict) else None
    if not isinstance(mask, list):
        return annotation
    parts = [part for part in mask if not isinstance(part, list) or len(part) >= _LEAST]
    return {**annotation, 'segmentation': parts} if 0 < len(parts) < len(mask) else annotation


def _is_turned(annotation: Any) -> bool:
    """Whether a box is CVAT's, of which the file has the edges before it was turned."""
    if not isinstance(annotation, dict) or annotation.get('segmentation'):
        return False
    attributes = annotation.get('attributes')
    rotation = attributes.get('rotation') if isinstance(attributes, dict) else None
    return is_number(rotation) and rotation % 360 != 0


def _class_of(annotation: Any, names: Mapping[Any, str]) -> str:
    category = annotation.get('category_id') if isinstance(annotation, dict) else None
    return names.get(category, '') if is_id(category) else ''


def _completed(annotation: Any, index: int) -> Any:
    """Adds what is known without the file saying it."""
    if not isinstance(annotation, dict):
        return annotation
    return {'id': index, 'area': 1, 'iscrowd': 0, **annotation}


def _instance(annotation: Mapping[str, Any], names: Mapping[Any, str], where: str) -> Instance:
    mask = annotation.get('segmentation')
    outlines = tuple(tuple(map(float, p)) for p in mask) if isinstance(mask, list) else ()
    runs = mask if isinstance(mask, dict) and mask else None
    if runs is not None and isinstance(runs.get('counts'), list):
        from pycocotools import mask as coco_mask

        coded = coco_mask.frPyObjects(runs, *runs['size'])
        runs = dict(size=list(coded['size']), counts=coded['counts'].decode('ascii'))
    return Instance(
        names[annotation['category_id']],
        tuple(float(value) for value in annotation['bbox']),
        where,
        polygons=outlines,
        run_lengths=runs,
        is_crowd=bool(annotation.get('iscrowd')),
        area=annotation.get('area'),
    )
