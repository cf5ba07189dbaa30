"""Checks data sets of COCO's format: the file as it is, then as mmdet's data set takes it.

mmdet silently drops what does not fit. What it would drop is asked of its own filters, entry by
entry, so that the check and a training agree.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config

from attnpool_backbones.command_line import UserError
from attnpool_backbones.config_types import find_type, type_name
from attnpool_backbones.datasets.building import (
    build_dataset,
    classes_of,
    innermost,
    wrong_classes,
)
from attnpool_backbones.datasets.coco_entries import (
    CATEGORY,
    IMAGE,
    Uses,
    annotation_problems,
    entry_fault,
    is_id,
)
from attnpool_backbones.datasets.coco_file import ENTRIES, read_coco_file
from attnpool_backbones.datasets.config_paths import metrics_of
from attnpool_backbones.datasets.findings import Found, Problem
from attnpool_backbones.datasets.inspection import Inspected
from attnpool_backbones.datasets.sample_reading import Sample

__all__ = ['inspect_coco']


def inspect_coco(
    dataset: Mapping[str, Any], split: str, cfg: Config, splits: Sequence[str]
) -> Inspected:
    """Checks an annotation file and lists the images that it tells of.

    Args:
        dataset: Config of the data set.
        split: 'train', 'val' or 'test'.
        cfg: The whole config.
        splits: All splits that are checked; what any of them does with the file counts.

    Raises:
        UserError: The data set is none of COCO's format, or cannot be built.
    """
    import mmdet.datasets
    from mmdet.registry import DATASETS

    kind = find_type(dataset, DATASETS)
    if not isinstance(kind, type) or not issubclass(kind, mmdet.datasets.CocoDataset):
        name = type_name(dataset) or 'the data set'
        raise UserError(f"{name} is not in COCO's format, which is all this tool knows")
    problems: list[Problem] = []

    def found(kind_of_problem: str, item: object, detail: str) -> None:
        problems.append(Problem(split, kind_of_problem, str(item), detail))

    if not dataset.get('ann_file'):
        raise UserError(f'{split}_dataloader.dataset has no ann_file')
    classes = classes_of(kind, dataset)
    fault = wrong_classes(classes)
    if fault:
        found('classes that are no names', name_of_source(dataset), fault)
        return Inspected(problems)
    built = build_dataset(dataset, DATASETS, lazy_init=True)
    if 'img' not in built.data_prefix:
        raise UserError(
            f'data_prefix of the {split} data set is {built.data_prefix}, without img: '
            'data_prefix=dict(img=FOLDER)'
        )
    path = built.ann_file
    uses = uses_of(dataset, path, frozenset(classes), cfg, splits)
    only_tested = built.test_mode and not uses.metrics
    listed = read_coco_file(path, found, frozenset({'annotations'}) if only_tested else frozenset())
    if listed is None:
        return Inspected(problems, classes=tuple(classes))
    categories = check_lists(listed, classes, path, found)
    order = label_order(listed['categories'], classes)
    if len(order) == len(classes) and list(order) != list(classes):
        label = next(i for i, name in enumerate(order) if name != classes[i])
        found(
            'categories in another order than classes',
            path,
            f'label {label} is {order[label]} by the file, which training and evaluation go by, '
            f'and {classes[label]} by metainfo; list the classes in the order of the files, which '
            'has to be the same in all of them',
        )
    sizes = image_sizes(listed['images'])
    faulty = set()
    for index, annotation in enumerate(listed['annotations']):
        for kind_of_problem, detail in annotation_problems(annotation, sizes, categories, uses):
            found(kind_of_problem, annotation_name(annotation, index), detail)
            faulty.add(index)
    for name in ('images',) if only_tested else ('images', 'annotations'):
        if not listed[name]:
            found(f'no {name}', path, 'an empty list')
    samples = load(built, listed, faulty, sizes, split, uses, found)
    return Inspected(
        problems,
        samples,
        tuple(classes),
        order=tuple(order) if len(order) == len(classes) else (),
        image_ids=frozenset(sizes),
        ann_file=os.path.normpath(path),
    )


def name_of_source(dataset: Mapping[str, Any]) -> str:
    """Returns what to call a data set in a message."""
    return os.path.join(dataset.get('data_root') or '', str(dataset.get('ann_file') or ''))


# ------------------------------------------------------------------ the file as it is


def check_lists(
    listed: Mapping[str, list], classes: Sequence[str], path: str, found: Found
) -> dict[Any, str]:
    """Checks categories and ids, and returns the names of the categories by id."""
    identified = {
        name: [e for e in entries if isinstance(e, dict) and is_id(e.get('id'))]
        for name, entries in listed.items()
    }
    categories = {entry['id']: entry.get('name') for entry in identified['categories']}
    categories = {k: name if isinstance(name, str) else '' for k, name in categories.items()}
    for name in classes:
        count = sum(category == name for category in categories.values())
        if count == 0:
            close = [c for c in categories.values() if c.strip().lower() == name.strip().lower()]
            more = f', but {close[0]!r}' if close else ''
            found('class that the file does not have', name, f'{path} has no such category{more}')
        elif count > 1:
            found('category listed more than once', name, f'{count} times')
    for name, entries in identified.items():
        for number, count in Counter(entry['id'] for entry in entries).items():
            if count > 1:
                found(f'{ENTRIES[name]} id used more than once', number, f'{count} times')
    for name, fields in (('images', IMAGE), ('categories', CATEGORY)):
        for index, entry in enumerate(listed[name]):
            fault = entry_fault(entry, fields)
            if fault:
                item = entry if isinstance(entry, dict) else f'{name}[{index}]'
                found(f'malformed {ENTRIES[name]} entry', item, fault)
    images = [image for image in listed['images'] if not entry_fault(image, IMAGE)]
    for name, count in Counter(image['file_name'] for image in images).items():
        if count > 1:
            found('image listed more than once', name, f'{count} times')
    return categories


def label_order(categories: Sequence[Any], classes: Sequence[str]) -> list[str]:
    """Returns the classes in the order of their labels, which is that of the file."""
    return [
        entry['name']
        for entry in categories
        if isinstance(entry, dict) and isinstance(entry.get('name'), str)
        and is_id(entry.get('id')) and entry['name'] in classes
    ]  # fmt: skip


def image_sizes(images: Sequence[Any]) -> dict[Any, tuple[float, float] | None]:
    """Returns width and height by id; of a malformed image no more is known than that it exists."""
    sizes: dict[Any, tuple[float, float] | None] = {
        image['id']: None for image in images if isinstance(image, dict) and is_id(image.get('id'))
    }
    for image in images:
        if not entry_fault(image, IMAGE):
            sizes[image['id']] = image['width'], image['height']
    return sizes


def annotation_name(annotation: Any, index: int) -> str:
    """Returns what to call an annotation in a message."""
    if not isinstance(annotation, dict) or not is_id(annotation.get('id')):
        return f'annotations[{index}]'
    return f'annotation {annotation["id"]} of image {annotation.get("image_id")}'


def uses_of(
    dataset: Mapping[str, Any],
    path: str,
    classes: frozenset[str],
    cfg: Config,
    splits: Sequence[str],
) -> Uses:
    """Collects what all splits do with a file, since it is checked once."""
    masks, metrics = False, set()
    for split in splits:
        loader = cfg.get(f'{split}_dataloader')
        for other in innermost(loader.dataset) if loader is not None else ():
            if name_of_source(other) == name_of_source(dataset):
                masks |= any(step.get('with_mask') for step in other.get('pipeline') or ())
        for scoring in metrics_of(cfg.get(f'{split}_evaluator')):
            scored = scoring.get('ann_file') and not scoring.get('format_only')
            if scored and os.path.normpath(scoring['ann_file']) == os.path.normpath(path):
                metric = scoring.get('metric', 'bbox')
                metrics.update([metric] if isinstance(metric, str) else metric or ())
    return Uses(masks, frozenset(metrics), classes)


# ------------------------------------------------------------------ as mmdet takes it


def load(
    built: Any,
    listed: Mapping[str, list],
    faulty: set[int],
    sizes: Mapping[Any, Any],
    split: str,
    uses: Uses,
    found: Found,
) -> list[Sample]:
    """Has the data set parse and filter the sound part of a file, and reports what it leaves out.

    Args:
        built: The data set, not loaded.
        listed: The lists of the file.
        faulty: Indices of annotations that have been reported.
        sizes: Width and height of images by id.
        split: 'train', 'val' or 'test'.
        uses: What the config does with the file.
        found: Is told what is left out.

    Returns:
        The images, with their sound annotations.
    """
    prepare(built, listed)
    by_image: dict[Any, list[tuple[int, dict]]] = defaultdict(list)
    for index, annotation in enumerate(listed['annotations']):
        if index not in faulty and annotation['image_id'] in sizes:
            by_image[annotation['image_id']].append((index, annotation))
    samples, infos = [], []
    for image in listed['images']:
        if entry_fault(image, IMAGE):
            continue
        instances, names = [], []
        raw = dict(image, img_id=image['id'])
        for index, annotation in by_image[image['id']]:
            kept = parse(built, raw, [annotation])['instances']
            instances += kept
            names += [annotation_name(annotation, index)] * len(kept)
            is_meant = uses.classes >= {built.names.get(annotation['category_id'])}
            if not kept and is_meant and not annotation.get('ignore', False):
                found(*left_out(annotation, index))
        info = dict(parse(built, raw, []), instances=instances, sample_idx=len(infos))
        infos.append(info)
        size = image['width'], image['height']
        samples.append(Sample(split, info, built.pipeline.transforms, size, names=tuple(names)))
    for info in filtered(built, infos):
        smallest = min(info['width'], info['height'])
        min_size = built.filter_cfg.get('min_size', 0)
        if smallest < min_size:
            found(
                'image below min_size',
                info['img_path'],
                f'{info["width"]}x{info["height"]}, and filter_cfg leaves out what is below '
                f'{min_size}',
            )
    trains = not built.test_mode
    if infos and (not built.data_list or (trains and not any(i['instances'] for i in infos))):
        found('nothing left to train on', built.ann_file, why_nothing_is_left(built, infos))
    if built.proposal_file is not None:
        # the pipeline wants proposals, which are of no format that is known here
        return [Sample(s.split, s.info, (), s.size, names=s.names) for s in samples]
    return samples


def prepare(built: Any, listed: Mapping[str, list]) -> None:
    """Gives a data set what its `load_data_list` would set before it parses annotations."""
    categories = [c for c in listed['categories'] if not entry_fault(c, CATEGORY)]
    built.names = {category['id']: category['name'] for category in categories}
    classes = built.metainfo['classes']
    built.cat_ids = [category['id'] for category in categories if category['name'] in classes]
    built.cat2label = {number: label for label, number in enumerate(built.cat_ids)}
    built.cat_img_map = defaultdict(list)
    for annotation in listed['annotations']:
        if not isinstance(annotation, dict):
            continue
        category, image = annotation.get('category_id'), annotation.get('image_id')
        if is_id(category) and is_id(image):
            built.cat_img_map[category].append(image)


def parse(built: Any, image: dict, annotations: list[dict]) -> dict:
    """Asks a data set for an image with some of its annotations."""
    return built.parse_data_info(dict(raw_img_info=image, raw_ann_info=annotations))


def left_out(annotation: dict, index: int) -> tuple[str, str, str]:
    """Words why mmdet does not take an annotation that is well formed."""
    name, box = annotation_name(annotation, index), annotation['bbox']
    if box[2] < 1 or box[3] < 1:
        hint = ''
        if max(box) <= 1:
            hint = '; are these shares of the image? They have to be pixels'
        return (
            'box below one pixel',
            name,
            f'{box} is {box[2]:g} x {box[3]:g} pixels and left out{hint}',
        )
    return 'annotation that is left out', name, f'the data set does not take its box {box}'


def filtered(built: Any, infos: list[dict]) -> list[dict]:
    """Has a data set filter its images, and returns those that it drops."""
    built.data_list = infos
    built.data_list = built.filter_data()
    kept = {id(info) for info in built.data_list}
    return [info for info in infos if id(info) not in kept]


def why_nothing_is_left(built: Any, infos: Sequence[dict]) -> str:
    """Words why a data set has no image left, with numbers."""
    filters = built.filter_cfg or {}
    empty = [info for info in infos if not info['instances']]
    small = [i for i in infos if min(i['width'], i['height']) < filters.get('min_size', 0)]
    reasons = []
    if empty:
        wanted = ', '.join(built.metainfo['classes'][:5])
        there = ', '.join(sorted(set(map(str, built.names.values())))[:5]) or 'none'
        reasons.append(
            f'{len(empty)} without an object of the classes {wanted} that can be trained on '
            f'(categories in the file: {there})'
        )
    if small:
        reasons.append(f'{len(small)} below min_size={filters["min_size"]} pixels')
    return f'images: {len(infos)}, of them ' + (' and '.join(reasons) or 'none is taken')
