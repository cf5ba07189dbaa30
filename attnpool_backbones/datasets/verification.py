"""Finds everything in the data sets of a config that training would stumble over.

Training leaves out or distorts much of this silently: boxes of unknown classes, images without a
readable end, labels that belong to no class.
"""

import json
import multiprocessing
import os
import reprlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from PIL import Image

from attnpool_backbones.command_line import UserError
from attnpool_backbones.datasets.coco_entries import (
    CATEGORY,
    IMAGE,
    Uses,
    annotation_problems,
    entry_fault,
    is_id,
)
from attnpool_backbones.launching.config import recognise_task
from attnpool_backbones.launching.input_files import require_data

__all__ = ['Problem', 'Report', 'verify']

IGNORED = 255
"""Label of pixels that no loss and no metric counts."""
ENTRIES = dict(images='image', annotations='annotation', categories='category')
"""The lists of a COCO file, and what they list."""
CHUNK = 64  # images a process takes at once


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Args:
        split: ``'train'``, ``'val'`` or ``'test'``.
        kind: What is wrong, the same words for all cases of it.
        item: The file, or the number of the image or annotation.
        detail: The wrong value, and the right ones where that helps.
    """

    split: str
    kind: str
    item: str
    detail: str


@dataclass(frozen=True)
class Report:
    """What was looked at, by split, and what was found."""

    images: Mapping[str, int]
    problems: tuple[Problem, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many problems of each kind there are, most first."""
        return dict(Counter(problem.kind for problem in self.problems).most_common())

    def to_json(self) -> str:
        """Returns everything, as text for a file."""
        content = dict(
            images=dict(self.images),
            counts=self.counts,
            problems=[asdict(problem) for problem in self.problems],
        )
        return json.dumps(content, indent=1) + '\n'


@dataclass(frozen=True)
class _Files:
    """What is read of one image: its file, and its label map or the size it should have."""

    split: str
    image: str
    size: tuple[int, int] | None = None
    """Width and height in pixels, as annotated."""
    label_map: str | None = None
    labels: frozenset[int] = frozenset()


def verify(
    cfg: Config,
    splits: Sequence[str] = ('train', 'val', 'test'),
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Checks all annotations, and reads all images and label maps, of a config's data sets.

    Args:
        cfg: The config; its dataloaders tell files, classes and how labels are counted.
        splits: Which dataloaders; data sets that several have in common are checked once.
        workers: Processes that read files.
        progress: Called with the number of images read and of all images.

    Returns:
        The findings.

    Raises:
        UserError: Whole files or folders of the data set are missing, or it is of a kind that is
            not known here, or the config has none of the splits.
    """
    if not any(_has(cfg, split) for split in splits):
        wanted = ', '.join(f'{split}_dataloader' for split in splits)
        raise UserError(f'{cfg.filename} has no data set to check, none of {wanted}')
    require_data(cfg, splits)
    inspect = {
        'mmdet': partial(_inspect_coco, cfg=cfg, splits=splits),
        'mmseg': _inspect_label_maps,
    }[recognise_task(cfg)]
    images: dict[str, int] = {}
    problems: list[Problem] = []
    files: list[_Files] = []
    seen: list[Any] = []
    for split in splits:
        for dataset in _innermost(cfg[f'{split}_dataloader'].dataset) if _has(cfg, split) else ():
            if _source(dataset) in seen:
                continue
            seen.append(_source(dataset))
            found, listed = inspect(dataset, split)
            problems += found
            files += listed
            images[split] = images.get(split, 0) + len(listed)
    for done, found in enumerate(_in_parallel(_read, files, workers), 1):
        problems += found
        if progress is not None:
            progress(done, len(files))
    return Report(images, tuple(problems))


def _has(cfg: Config, split: str) -> bool:
    return cfg.get(f'{split}_dataloader') is not None


def _source(dataset: Mapping[str, Any]) -> dict[str, Any]:
    return {key: dataset.get(key) for key in ('data_root', 'ann_file', 'data_prefix')}


def _innermost(dataset: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yields the data sets inside of wrappers."""
    inner = [*(dataset.get('datasets') or ())]
    if dataset.get('dataset') is not None:
        inner.append(dataset['dataset'])
    if not inner:
        yield dataset
    for wrapped in inner:
        yield from _innermost(wrapped)


def _in_parallel(
    check: Callable[[_Files], list[Problem]], files: Sequence[_Files], workers: int
) -> Iterator[list[Problem]]:
    if workers <= 1 or len(files) <= CHUNK:
        yield from map(check, files)
        return
    with multiprocessing.get_context('fork').Pool(workers) as pool:
        yield from pool.imap(check, files, chunksize=CHUNK)


def _read(files: _Files) -> list[Problem]:
    """Reads an image and its label map to their ends."""
    problems = []

    def found(kind: str, item: str, detail: str) -> None:
        problems.append(Problem(files.split, kind, item, detail))

    size = files.size
    pixels = _pixels(files.image, 'image', found)
    if pixels is not None:
        width_height = pixels.shape[1], pixels.shape[0]
        if size is not None and width_height != size:
            found(
                'image of another size than annotated',
                files.image,
                f'{width_height[0]}x{width_height[1]}, annotated {size[0]}x{size[1]}',
            )
        size = width_height
    labels = None if files.label_map is None else _pixels(files.label_map, 'mask', found)
    if labels is None:
        return problems
    if labels.ndim != 2:
        found('mask with several channels', files.label_map, f'{labels.shape[2]} channels')
        return problems
    if size is not None and labels.shape != size[::-1]:
        height, width = labels.shape
        found(
            'mask of another size than its image',
            files.label_map,
            f'{width}x{height}, image {size[0]}x{size[1]}',
        )
    wrong = sorted(set(np.unique(labels).tolist()) - files.labels)
    if wrong:
        top = max(files.labels - {IGNORED})
        found('mask with labels of no class', files.label_map, f'{wrong[:10]}, not in 0..{top}')
    return problems


def _pixels(path: str, name: str, found: Callable[[str, str, str], None]) -> np.ndarray | None:
    # Pillow, since OpenCV fills the rest of a file that was cut off with grey and says nothing
    if not os.path.isfile(path):
        found(f'missing {name}', path, 'no such file')
        return None
    try:
        with Image.open(path) as image:
            image.load()
            return np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        found(f'unreadable {name}', path, str(error))
        return None


# ------------------------------------------------------------------ segmentation


def _inspect_label_maps(
    dataset: Mapping[str, Any], split: str
) -> tuple[list[Problem], list[_Files]]:
    """Lists images and label maps exactly as mmseg's data set does."""
    import mmseg.datasets  # noqa: F401  registers them
    from mmseg.registry import DATASETS

    built = DATASETS.build(dict(dataset, pipeline=[], lazy_init=False, serialize_data=False))
    classes = len(built.metainfo['classes'])
    shifts = built.reduce_zero_label
    labels = frozenset(built.label_map or range(classes + shifts)) | {IGNORED}
    problems = []
    steps = [s for s in dataset.get('pipeline', ()) if s.get('type') == 'LoadAnnotations']
    for step in steps:
        if step.get('reduce_zero_label') not in (None, shifts):
            problems.append(
                Problem(
                    split,
                    'reduce_zero_label differs',
                    str(dataset['type']),
                    f'{shifts} in the data set, {step["reduce_zero_label"]} in LoadAnnotations',
                )
            )
    samples = [built.get_data_info(index) for index in range(len(built))]
    if not samples:
        problems.append(
            Problem(split, 'no images', str(built.data_prefix['img_path']), built.img_suffix)
        )
    listed = [
        _Files(split, s['img_path'], label_map=s['seg_map_path'], labels=labels) for s in samples
    ]
    folder = built.data_prefix.get('seg_map_path')
    if folder and not built.ann_file:
        used = {os.path.normpath(files.label_map) for files in listed}
        for path in sorted(Path(folder).rglob(f'*{built.seg_map_suffix}')):
            if os.path.normpath(path) not in used:
                problems.append(Problem(split, 'mask without an image', str(path), 'not used'))
    return problems, listed


# ------------------------------------------------------------------ detection


def _inspect_coco(
    dataset: Mapping[str, Any], split: str, cfg: Config, splits: Sequence[str]
) -> tuple[list[Problem], list[_Files]]:
    """Checks a COCO file as it is; mmdet's data set silently drops what does not fit."""
    import mmdet.datasets
    from mmdet.registry import DATASETS

    kind = DATASETS.get(dataset['type'])
    if kind is None or not issubclass(kind, mmdet.datasets.CocoDataset):
        raise UserError(f"{dataset['type']} is not in COCO's format, which is all this tool knows")
    root = dataset.get('data_root') or ''
    path = os.path.join(root, dataset['ann_file'])
    try:
        content = json.loads(Path(path).read_bytes())
        listed = {name: content[name] for name in ENTRIES}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return [Problem(split, 'damaged annotation file', path, repr(error))], []
    wrong = [f'{n} {reprlib.repr(x)}' for n, x in listed.items() if not isinstance(x, list)]
    if wrong:
        return [Problem(split, 'damaged annotation file', path, f'{", ".join(wrong)}, no list')], []
    problems = []

    def found(kind: str, item: object, detail: str) -> None:
        problems.append(Problem(split, kind, str(item), detail))

    identified = {name: _identified(listed[name]) for name in ENTRIES}
    categories = {entry['id']: entry.get('name') for entry in identified['categories']}
    categories = {k: name if isinstance(name, str) else '' for k, name in categories.items()}
    classes = kind._load_metainfo(dataset.get('metainfo'))['classes']
    for name in classes:
        count = sum(category == name for category in categories.values())
        if count == 0:
            found('class that the file does not have', name, f'{path} has no such category')
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
    # of a malformed image no more is known than that it is there
    sizes = {image['id']: None for image in identified['images']}
    sizes.update((image['id'], (image['width'], image['height'])) for image in images)
    uses = _uses(dataset, path, frozenset(classes), cfg, splits)
    for index, annotation in enumerate(listed['annotations']):
        for kind_of_problem, detail in annotation_problems(annotation, sizes, categories, uses):
            found(kind_of_problem, _name(annotation, index), detail)
    for name in ('images', 'annotations'):
        if not listed[name] and not (name == 'annotations' and dataset.get('test_mode')):
            found(f'no {name}', path, 'an empty list')
    prefix = os.path.join(root, (dataset.get('data_prefix') or {}).get('img', ''))
    files = [
        _Files(split, os.path.join(prefix, image['file_name']), sizes[image['id']])
        for image in images
    ]
    return problems, files


def _identified(entries: Sequence[Any]) -> list[dict[str, Any]]:
    return [entry for entry in entries if isinstance(entry, dict) and is_id(entry.get('id'))]


def _name(annotation: Any, index: int) -> str:
    if not isinstance(annotation, dict) or not is_id(annotation.get('id')):
        return f'annotations[{index}]'
    return f'annotation {annotation["id"]} of image {annotation.get("image_id")}'


def _uses(
    dataset: Mapping[str, Any],
    path: str,
    classes: frozenset[str],
    cfg: Config,
    splits: Sequence[str],
) -> Uses:
    """Collects what all splits do with a file, since it is checked once."""
    masks, metrics = False, set()
    for split in splits:
        for other in _innermost(cfg[f'{split}_dataloader'].dataset) if _has(cfg, split) else ():
            if _source(other) == _source(dataset):
                masks |= any(step.get('with_mask') for step in other.get('pipeline') or ())
        evaluators = cfg.get(f'{split}_evaluator') or ()
        for scoring in [evaluators] if isinstance(evaluators, Mapping) else evaluators:
            scored = scoring.get('ann_file') and not scoring.get('format_only')
            if scored and os.path.normpath(scoring['ann_file']) == os.path.normpath(path):
                metric = scoring.get('metric', 'bbox')
                metrics.update([metric] if isinstance(metric, str) else metric)
    return Uses(masks, frozenset(metrics), classes)
