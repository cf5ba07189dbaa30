"""Data that a config reads, looked for on disk before anything is built.

All that is missing is listed in one message, with its path and how to get it.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mmengine.config import Config

from attnpool_backbones.command_line import UserError
from attnpool_backbones.config_types import type_name
from attnpool_backbones.datasets.building import innermost
from attnpool_backbones.datasets.records import DATA_SETS

__all__ = [
    'dataset_paths',
    'metrics_of',
    'require_data',
    'require_loader',
]


def require_loader(cfg: Config, split: str) -> None:
    """Checks that a config says what to train or test on.

    Args:
        cfg: The whole config.
        split: ``'train'``, ``'val'`` or ``'test'``.

    Raises:
        UserError: If it does not.
    """
    loader = cfg.get(f'{split}_dataloader')
    if loader is None:
        raise UserError(f'{cfg.filename} has no {split}_dataloader')
    if not isinstance(loader, Mapping) or not isinstance(loader.get('dataset'), Mapping):
        raise UserError(
            f'{split}_dataloader in {cfg.filename} has to be a dict with a dataset, not {loader!r}'
        )


def dataset_paths(dataset: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Walks a dataset config, wrappers included.

    Args:
        dataset: Config of a dataset or of a wrapper around one (``dataset``) or several
            (``datasets``).

    Yields:
        The dataset's type, the name of the setting, and the path on disk. Paths of other storage
        (``s3://...``) are left out.
    """
    for own in innermost(dataset):
        root = own.get('data_root') or ''
        settings = {'ann_file': own.get('ann_file')}
        prefixes = own.get('data_prefix') or {}
        if isinstance(prefixes, str):
            prefixes = {'img': prefixes}
        settings.update({f'data_prefix.{key}': prefix for key, prefix in prefixes.items()})
        for name, setting in settings.items():
            if setting:
                path = os.path.join(root, setting)
                if '://' not in path:
                    yield type_name(own) or 'dataset', name, path


def metrics_of(evaluator: Any) -> list:
    """Returns the metrics of an evaluator's config, which may be one, a list, or an ``Evaluator``.

    Args:
        evaluator: As a config gives it; None for none.

    Returns:
        Their configs, not copied.
    """
    if isinstance(evaluator, Mapping) and 'metrics' in evaluator:
        evaluator = evaluator['metrics']
    if evaluator is None:
        return []
    return list(evaluator) if isinstance(evaluator, (list, tuple)) else [evaluator]


def metric_paths(evaluator: Any) -> Iterator[tuple[str, str, str]]:
    """Yields type, setting and path of the annotation files that metrics read themselves."""
    for metric in metrics_of(evaluator):
        ann_file = metric.get('ann_file')
        if ann_file and '://' not in ann_file:
            yield type_name(metric) or 'evaluator', 'ann_file', ann_file


def missing_data(cfg: Config, split: str) -> Iterator[tuple[str, str]]:
    """Finds what the data set and the evaluator of ``'train'``, ``'val'`` or ``'test'`` lack.

    Yields:
        The path, and what it is wanted for.
    """
    if cfg.get(f'{split}_dataloader') is None:
        return
    require_loader(cfg, split)
    wanted = list(dataset_paths(cfg[f'{split}_dataloader']['dataset']))
    wanted.extend(metric_paths(cfg.get(f'{split}_evaluator')))
    for kind, setting, path in wanted:
        if not os.path.exists(path):
            yield path, f'{split} {kind}.{setting}'
        elif os.path.isdir(path) and not os.listdir(path):
            yield path, f'{split} {kind}.{setting}, an empty folder'


def require_data(cfg: Config, splits: Iterable[str]) -> None:
    """Checks that every file and folder of data that a run will read exists.

    Args:
        cfg: The whole config.
        splits: Which of ``'train'``, ``'val'`` and ``'test'`` will be read.

    Raises:
        UserError: Listing everything that is missing, and where it comes from.
    """
    # an evaluator often reads the file that its data set reads: named once, for the data set
    missing: dict[str, str] = {}
    for split in splits:
        for path, purpose in missing_data(cfg, split):
            missing.setdefault(path, purpose)
    if not missing:
        return
    about = ' '.join([*missing, *missing.values()])
    hints = [data.how_to_get for data in DATA_SETS.values() if re.search(data.pattern, about)]
    raise UserError(
        '\n'.join(
            [
                f'the data of {cfg.filename} is not there:',
                *(f'  {os.path.abspath(path)} ({use})' for path, use in missing.items()),
                *hints[:1],
                'If it is elsewhere, link its folder there (ln -s).',
            ]
        )
    )
