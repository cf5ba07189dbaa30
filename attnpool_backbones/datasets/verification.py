"""Finds everything in the data sets of a config that training would stumble over.

Training leaves out or distorts much of this silently: boxes of unknown classes, images without a
readable end, labels that belong to no class.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import cv2
import torch
from mmengine.config import Config

from attnpool_backbones.command_line import UserError
from attnpool_backbones.config_tasks import recognise_dense_task
from attnpool_backbones.datasets.building import innermost
from attnpool_backbones.datasets.child_processes import in_processes
from attnpool_backbones.datasets.coco_verification import inspect_coco
from attnpool_backbones.datasets.config_paths import metrics_of, require_data
from attnpool_backbones.datasets.findings import Problem, Report
from attnpool_backbones.datasets.inspection import Inspected
from attnpool_backbones.datasets.label_map_verification import inspect_label_maps
from attnpool_backbones.datasets.limits import MAX_PIXELS
from attnpool_backbones.datasets.sample_reading import Sample, read_sample

__all__ = ['Problem', 'Report', 'inspect', 'verify']

CHUNK = 64  # images a process takes at once
Findings = tuple[list[Problem], list[Problem]]


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
    if not any(cfg.get(f'{split}_dataloader') is not None for split in splits):
        wanted = ', '.join(f'{split}_dataloader' for split in splits)
        raise UserError(f'{cfg.filename} has no data set to check, none of {wanted}')
    require_data(cfg, splits)
    limit = cfg.get('max_pixels') or MAX_PIXELS
    images: dict[str, int] = {}
    samples: list[Sample] = []
    problems: list[Problem] = []
    for split, inspected in inspect(cfg, splits, problems):
        samples += [replace(sample, max_pixels=limit) for sample in inspected.samples]
        images[split] = images.get(split, 0) + len(inspected.samples)
    notes: list[Problem] = []
    for done, (wrong, noted) in enumerate(_in_parallel(samples, workers), 1):
        problems += wrong
        notes += noted
        if progress is not None:
            progress(done, len(samples))
    # two splits may read the same file in ways that differ
    return Report(images, tuple(dict.fromkeys(problems)), tuple(dict.fromkeys(notes)))


def inspect(
    cfg: Config, splits: Sequence[str], problems: list[Problem]
) -> list[tuple[str, Inspected]]:
    """Checks the annotations of a config's data sets, and how they fit together.

    Args:
        cfg: The whole config.
        splits: Which dataloaders.
        problems: Is extended.

    Returns:
        The data sets with their splits, each once.
    """
    look = {
        'mmdet': partial(inspect_coco, cfg=cfg, splits=splits),
        'mmseg': partial(inspect_label_maps, cfg=cfg),
    }[recognise_dense_task(cfg, 'this check of data')]
    seen: list[Any] = []
    inspected: list[tuple[str, Inspected]] = []
    for split in splits:
        loader = cfg.get(f'{split}_dataloader')
        for dataset in innermost(loader.dataset) if loader is not None else ():
            if _source(dataset) not in seen:
                seen.append(_source(dataset))
                inspected.append((split, look(dataset, split)))
                problems += inspected[-1][1].problems
    _compare_classes(inspected, problems)
    for split, path, dataset in _other_scored_files(cfg, splits, inspected):
        # only read by the evaluator: its images are those of the data set
        scored = look(dict(dataset, ann_file=path), split)
        problems += scored.problems
        _compare_images(split, path, scored, inspected, problems)
        _compare_classes([*inspected[:1], (split, scored)], problems)
    return inspected


def _source(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what makes two data sets the same for this check."""
    keys = ('data_root', 'ann_file', 'data_prefix', 'metainfo', 'pipeline', 'test_mode')
    return {key: dataset.get(key) for key in keys}


def _in_parallel(samples: Sequence[Sample], workers: int) -> Iterator[Findings]:
    if workers <= 1 or len(samples) <= CHUNK:
        yield from map(read_sample, samples)
        return
    # a forked process waits for ever for threads that OpenCV had before
    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)
    try:
        # the samples are inherited: pipelines cannot always be sent to another process
        yield from in_processes(_read_shared, len(samples), workers, CHUNK, _share, (samples,))
    finally:
        cv2.setNumThreads(threads)


_shared: Sequence[Sample] = ()


def _share(samples: Sequence[Sample]) -> None:
    global _shared
    _shared = samples
    torch.set_num_threads(1)  # as the workers of a DataLoader do, for the same reason


def _read_shared(index: int) -> Findings:
    return read_sample(_shared[index])


# ------------------------------------------------------------------ one data set and another


def _compare_classes(inspected: Sequence[tuple[str, Inspected]], problems: list[Problem]) -> None:
    """Reports data sets whose labels stand for other classes than those of the first one."""
    known = [(split, i) for split, i in inspected if i.classes]
    if not known:
        return
    first_split, first = known[0]
    for split, other in known[1:]:
        labels, expected = other.order or other.classes, first.order or first.classes
        if labels == expected:
            continue
        if other.order and first.order and set(labels) == set(expected):
            number = next(i for i, name in enumerate(labels) if name != expected[i])
            detail = f'label {number} is {labels[number]}, and {expected[number]} in {first_split}'
            if other.ann_file:
                detail += ': they are counted by the order in the files'
        elif set(other.classes) != set(first.classes):
            here, there = (', '.join(classes[:5]) for classes in (other.classes, first.classes))
            detail = (
                f'{len(other.classes)} classes ({here} ...), but {len(first.classes)} in '
                f'{first_split} ({there} ...): metainfo differs'
            )
        else:
            continue  # a class is missing in the file, which is reported
        item = other.ann_file or f'{split}_dataloader'
        problems.append(Problem(split, f'other classes than in {first_split}', item, detail))


def _other_scored_files(
    cfg: Config, splits: Sequence[str], inspected: Sequence[tuple[str, Inspected]]
) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yields the files that an evaluator reads and no data set does, with the split's data set."""
    known = {i.ann_file for _, i in inspected}
    for split in splits:
        loader = cfg.get(f'{split}_dataloader')
        for evaluator in metrics_of(cfg.get(f'{split}_evaluator')):
            path = evaluator.get('ann_file')
            if loader is None or not isinstance(path, str) or '://' in path:
                continue
            path = os.path.normpath(path)
            if evaluator.get('format_only') or path in known or not os.path.isfile(path):
                continue
            known.add(path)
            yield split, os.path.abspath(path), next(innermost(loader.dataset))


def _compare_images(
    split: str,
    path: str,
    scored: Inspected,
    inspected: Sequence[tuple[str, Inspected]],
    problems: list[Problem],
) -> None:
    """Reports images that are tested and not scored, or the other way round."""
    tested = frozenset().union(*(i.image_ids for s, i in inspected if s == split))
    if not tested or not scored.image_ids or tested == scored.image_ids:
        return
    untested, unscored = scored.image_ids - tested, tested - scored.image_ids
    problems.append(
        Problem(
            split,
            'file that scores other images than are tested',
            path,
            f'{len(untested)} of its images are not tested and count as missed, {len(unscored)} '
            'tested ones are not in it',
        )
    )
