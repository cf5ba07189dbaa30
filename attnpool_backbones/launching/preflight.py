"""Checks over a config that find what is missing on disk before anything is built.

All that is missing is listed in one message, with its path and how to get it.
"""

import difflib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from attnpool_backbones.command_line import UserError
from attnpool_backbones.config_files import config_root

__all__ = [
    'PreflightError',
    'check_config',
    'dataset_paths',
    'find_config',
    'pretrained_files',
    'recognise_task',
    'require_target_file',
    'require_target_folder',
]

TASKS = {'mmdet': 'detection', 'mmseg': 'segmentation'}

# what the type or the path of a data set contains -> how to get the data
DATA_SOURCES = (
    (
        r'digit',
        'The digit scenes are made by `python tools/dataset_converters/'
        'make_digit_scenes.py` (or `make quickstart`).',
    ),
    (
        r'ADE20K|ADEChallenge',
        'ADE20k comes from http://sceneparsing.csail.mit.edu; `python tools/'
        'dataset_converters/ade20k.py DOWNLOADS` unpacks it as data/ade/'
        'ADEChallengeData2016/{images,annotations}/{training,validation}.',
    ),
    (
        r'\bcoco/|instances_(train|val)2017\.json',
        'COCO 2017 comes from https://cocodataset.org/#download; `python tools/'
        'dataset_converters/coco2017.py DOWNLOADS` unpacks it as data/coco/'
        '{annotations,train2017,val2017}, with '
        'annotations/instances_{train,val}2017.json.',
    ),
)


class PreflightError(UserError):
    """Something a run needs is missing or does not fit."""


def find_config(path: str) -> Path:
    """Returns the config file ``path``, or names the ones that were perhaps meant.

    Args:
        path (str): As typed.

    Returns:
        Path: The existing file.

    Raises:
        PreflightError: If there is no such file.
    """
    config = Path(path)
    if config.is_file():
        return config
    known = {
        file.name: file
        for file in sorted(config_root().rglob('*.py'))
        if '_base_' not in file.parts
    }
    close = difflib.get_close_matches(config.name, known, n=3, cutoff=0.5)
    lines = [f'config not found: {config.absolute()}']
    if close:
        lines.append('Did you mean:')
        lines.extend(f'  {os.path.relpath(known[name])}' for name in close)
    raise PreflightError('\n'.join(lines))


def recognise_task(cfg: Config) -> str:
    """Tells detection from segmentation.

    Args:
        cfg (Config): The whole config.

    Returns:
        str: The library that serves it, ``'mmdet'`` or ``'mmseg'``.

    Raises:
        PreflightError: If ``default_scope`` is neither.
    """
    scope = cfg.get('default_scope')
    if scope not in TASKS:
        raise PreflightError(
            f'default_scope is {scope!r} in {cfg.filename}, but has to be '
            "'mmdet' (detection) or 'mmseg' (segmentation)"
        )
    return scope


def dataset_paths(dataset: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Walks a dataset config, wrappers included.

    Args:
        dataset (Mapping): Config of a dataset or of a wrapper around one (``dataset``) or several
            (``datasets``).

    Yields:
        tuple[str, str, str]: The dataset's type, the name of the setting, and the path on disk.
        Paths of other storage (``s3://...``) are left out.
    """
    inner = list(dataset.get('datasets') or ())
    if dataset.get('dataset') is not None:
        inner.append(dataset['dataset'])
    for wrapped in inner:
        yield from dataset_paths(wrapped)
    root = dataset.get('data_root') or ''
    settings = {'ann_file': dataset.get('ann_file')}
    prefixes = dataset.get('data_prefix') or {}
    if isinstance(prefixes, str):
        prefixes = {'img': prefixes}
    settings.update({f'data_prefix.{key}': prefix for key, prefix in prefixes.items()})
    for name, setting in settings.items():
        if setting:
            path = os.path.join(root, setting)
            if '://' not in path:
                yield str(dataset.get('type', 'dataset')), name, path


def evaluator_paths(evaluators: Any) -> Iterator[tuple[str, str, str]]:
    """Yields type, setting and path of the annotation files that evaluators read themselves."""
    for evaluator in evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]:
        ann_file = evaluator.get('ann_file')
        if ann_file and '://' not in ann_file:
            yield str(evaluator.get('type', 'evaluator')), 'ann_file', ann_file


def pretrained_files(model: Any) -> Iterator[str]:
    """Yields the local checkpoint files that ``init_cfg`` entries of a model config name."""
    if isinstance(model, Mapping):
        checkpoint = model.get('checkpoint')
        if (
            model.get('type') == 'Pretrained'
            and isinstance(checkpoint, str)
            and '://' not in checkpoint
        ):
            yield checkpoint
        model = list(model.values())
    if isinstance(model, (list, tuple)):
        for value in model:
            yield from pretrained_files(value)


def require_target_folder(option: str, folder: str) -> None:
    """Checks that a run will be able to write into a folder, which is made if it is missing.

    Args:
        option (str): The flag or setting that names it.
        folder (str): As typed.

    Raises:
        PreflightError: If it cannot be made or written to.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        # permissions do not tell of read-only and full disks
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b'0')
    except FileExistsError as error:
        raise PreflightError(f'{option} {folder}: is a file, not a folder') from error
    except OSError as error:
        raise PreflightError(
            f'{option} {folder}: cannot be written to ({error.strerror or error})'
        ) from error


def require_target_file(option: str, file: str) -> None:
    """Checks that a run will be able to write a file, whose folder is made if it is missing.

    Args:
        option (str): The flag that names it.
        file (str): As typed.

    Raises:
        PreflightError: If it is a folder, or its folder cannot be written to.
    """
    if os.path.isdir(file):
        raise PreflightError(f'{option} {file}: is a folder, not a file')
    if os.path.exists(file) and not os.access(file, os.W_OK):
        raise PreflightError(f'{option} {file}: is write-protected')
    require_target_folder(option, os.path.dirname(os.path.abspath(file)))


def missing_data(cfg: Config, split: str) -> Iterator[tuple[str, str]]:
    """Finds what the data set and the evaluator of ``'train'``, ``'val'`` or ``'test'`` lack.

    Yields:
        tuple[str, str]: The path, and what it is wanted for.
    """
    loader = cfg.get(f'{split}_dataloader')
    if loader is None:
        return
    if not isinstance(loader, Mapping) or not isinstance(loader.get('dataset'), Mapping):
        raise PreflightError(
            f'{split}_dataloader in {cfg.filename} has to be a dict with a dataset, not {loader!r}'
        )
    wanted = list(dataset_paths(loader['dataset']))
    if cfg.get(f'{split}_evaluator') is not None:
        wanted.extend(evaluator_paths(cfg[f'{split}_evaluator']))
    for kind, setting, path in wanted:
        if not os.path.exists(path):
            yield path, f'{split} {kind}.{setting}'
        elif os.path.isdir(path) and not os.listdir(path):
            yield path, f'{split} {kind}.{setting}, an empty folder'


def check_config(cfg: Config, splits: tuple[str, ...], pretrained: bool) -> None:
    """Checks that every file and folder a run will read exists.

    Args:
        cfg (Config): The whole config.
        splits (tuple[str, ...]): Which of ``'train'``, ``'val'`` and ``'test'`` will be read.
        pretrained (bool): Whether the files of ``init_cfg`` and ``load_from`` will be read.

    Raises:
        PreflightError: Listing everything that is missing.
    """
    lines = []
    # an evaluator often reads the file that its data set reads: named once, for the data set
    missing: dict[str, str] = {}
    for split in splits:
        for path, purpose in missing_data(cfg, split):
            missing.setdefault(path, purpose)
    if missing:
        lines.append(f'the data of {cfg.filename} is not there:')
        lines.extend(f'  {os.path.abspath(path)} ({use})' for path, use in missing.items())
        about = ' '.join([*missing, *missing.values()])
        hints = [hint for pattern, hint in DATA_SOURCES if re.search(pattern, about)]
        lines.extend(hints[:1])
        lines.append('If it is elsewhere, link its folder there (ln -s).')
    if pretrained:
        absent = [file for file in pretrained_files(cfg.get('model')) if not os.path.isfile(file)]
        if absent:
            lines.append(
                'checkpoints that init_cfg names are not there; download them, or change init_cfg:'
            )
            lines.extend(f'  {os.path.abspath(file)}' for file in dict.fromkeys(absent))
        start = cfg.get('load_from')
        if start and '://' not in start and not os.path.isfile(start):
            lines.append(f'the checkpoint that load_from names is not there: {start}')
    if lines:
        raise PreflightError('\n'.join(lines))
