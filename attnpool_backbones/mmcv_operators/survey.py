"""Tries the models of mmdet's and mmseg's own configs: whether they build and run.

Configs whose models are made of the same parts, whatever their sizes, are one structure; the
smallest stands for all. A model has random weights and predicts for one small random image.
"""

import contextlib
import gc
import importlib
import json
import os
import re
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from attnpool_backbones.atomic_files import write_atomically
from attnpool_backbones.command_line import UserError
from attnpool_backbones.markdown import markdown_table, replace_section

IMAGES = ((3, 160, 224), (3, 512, 512))  # channels, height, width; the second if the first fails
SECONDS = 240  # for one model
SMALL = re.compile(r'r18|r34|r50|r-50|tiny|nano|[-_]s[-_]|b0|small|mobile')
DISTRIBUTIONS = {'mmdet': 'mmdet', 'mmseg': 'mmsegmentation'}
UNTRIED = 'not tried yet'


class TooSlow(Exception):
    """A model took longer than it may."""


def find_configs(library: str) -> dict[str, list[Path]]:
    """Returns the configs with a model that a library's wheel ships, by the models' structure."""
    from mmengine.config import Config

    root = _shipped(library) / 'configs'
    structures: dict[str, list[Path]] = {}
    for path in sorted(root.rglob('*.py')):
        if '_base_' in path.parts or path.name.startswith('_'):
            continue
        try:
            with _quiet():
                model = Config.fromfile(path).get('model')
        except Exception as error:
            reason = _first_line(error).partition(', the current sys.path')[0]
            structures.setdefault(f'unreadable: {reason}', []).append(path)
            continue
        if model:
            parts = sorted({f'{key}={kind}' for key, kind in _types(model, '')})
            structures.setdefault(' '.join(parts), []).append(path)
    return structures


def try_structures(
    library: str, results: Path, say: Callable[[str], None], limit: int | None = None
) -> None:
    """Tries one config of each structure and writes a line for each into a file.

    Args:
        library: ``'mmdet'`` or ``'mmseg'``.
        results: A file of JSON lines. Structures that it has a result of are not tried again.
        say: Is told what goes on.
        limit: Tries no more than so many. Default: all.

    Raises:
        UserError: The library is unknown.
    """
    if library not in DISTRIBUTIONS:
        raise UserError(f"unknown library '{library}', choose from {list(DISTRIBUTIONS)}")
    say(f'reading the configs of {library}')
    structures = find_configs(library)
    known = {(row['library'], row['structure']): row for row in read_results(results)}
    rows = list(known.values())
    waiting = []
    for structure, paths in structures.items():
        path = min(paths, key=lambda p: (not SMALL.search(p.name), len(p.name), p.name))
        row = dict(library=library, structure=structure, config=path.stem, configs=len(paths))
        found = known.get((library, structure))
        if found is None:
            rows.append({**row, 'problem': UNTRIED})
        if found is None or found['problem'] == UNTRIED:
            waiting.append((structure, path))
    write_results(rows, results)
    for number, (structure, path) in enumerate(waiting[:limit], 1):
        row = next(r for r in rows if (r['library'], r['structure']) == (library, structure))
        row['problem'] = 'the process ended'  # on disk first: then it is not tried again
        write_results(rows, results)
        row['problem'] = try_config(path)
        write_results(rows, results)
        say(f'[{number}/{len(waiting)}] {path.stem}: {row["problem"] or "runs"}')


def write_results(rows: list[dict[str, Any]], results: Path) -> None:
    """Writes the file that :func:`read_results` reads."""
    lines = ''.join(json.dumps(row) + '\n' for row in rows)
    write_atomically(lines.encode(), results)


def read_results(results: Path) -> list[dict[str, Any]]:
    """Reads what :func:`try_structures` wrote."""
    return (
        [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    )


def try_config(path: Path) -> str:
    """Builds the model of a config and predicts once; returns what went wrong, or ''."""
    reason = ''
    for image in IMAGES:
        try:
            with _quiet(), _time_limit(SECONDS):
                _predict(path, image)
            return ''
        except Exception as error:
            reason = _reason(error)
        finally:
            gc.collect()
        if reason.startswith(('needs', 'MissingOperator', 'TooSlow', 'FileNotFound')):
            break
    return reason


def _predict(path: Path, image: tuple[int, int, int]) -> None:
    from mmengine.config import Config
    from mmengine.model import revert_sync_batchnorm
    from mmengine.registry import MODELS, init_default_scope

    config = Config.fromfile(path)
    scope = config.get('default_scope', 'mmdet')
    init_default_scope(scope)
    importlib.import_module(f'{scope}.models')
    model_config = config.model
    if 'teacher_ckpt' in model_config:
        model_config.teacher_ckpt = None  # weights on the network
    with _folder(_shipped(scope)):  # some name the configs of their teachers
        # one process, as mmdet's and mmseg's own functions for inference make it
        model = revert_sync_batchnorm(MODELS.build(model_config))
    model.eval()
    with torch.no_grad():
        model.test_step(_inputs(scope, model, image))


def _inputs(scope: str, model: torch.nn.Module, image: tuple[int, int, int]) -> dict[str, Any]:
    """Returns a batch of one image, or of one frame."""
    if scope == 'mmseg':
        from mmseg.structures import SegDataSample

        sample = SegDataSample()
        shape = dict(img_shape=image[1:], ori_shape=image[1:], pad_shape=image[1:])
        sample.set_metainfo(shape)
        return dict(inputs=[torch.randint(0, 255, image, dtype=torch.uint8)], data_samples=[sample])
    from mmdet import testing
    from mmdet.models.mot import BaseMOTModel

    if isinstance(model, BaseMOTModel):
        return testing.demo_track_inputs(
            batch_size=1, num_frames=1, image_shapes=image, num_classes=2
        )
    batch = testing.demo_mm_inputs(
        batch_size=1, image_shapes=[image], with_mask=True, with_semantic=True
    )
    if type(model).__name__ == 'FastRCNN':  # takes proposals from a file
        for sample in batch['data_samples']:
            sample.proposals = sample.gt_instances.clone()
    return batch


def _types(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """Yields the types in a model's config, with the keys that they stand under."""
    if isinstance(value, Mapping):
        if isinstance(value.get('type'), (str, type)):
            kind = value['type']
            yield key, kind if isinstance(kind, str) else kind.__name__
        for name, entry in value.items():
            # Training alone needs these.
            if name not in ('init_cfg', 'train_cfg') and not name.startswith('loss'):
                yield from _types(entry, name)
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from _types(entry, key)


def _shipped(library: str) -> Path:
    """Returns the folder of what a library's wheel ships besides its code."""
    return Path(importlib.import_module(library).__file__).parent / '.mim'


def _reason(error: Exception) -> str:
    missing = error
    while missing is not None:
        if isinstance(missing, ModuleNotFoundError):
            return f'needs {(missing.name or "").partition(".")[0]}'
        missing = missing.__cause__ or missing.__context__
    return f'{type(error).__name__}: {_first_line(error)}'


def _first_line(error: Exception) -> str:
    text = ' '.join(str(error).split())
    return re.sub(r'(?<!\w)/(?:\S*/)?', '', text)[:160]  # no folders of this machine


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings(), contextlib.redirect_stdout(None):
        warnings.simplefilter('ignore')
        yield


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)


@contextlib.contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TooSlow(f'took longer than {seconds} s')

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def report(rows: list[dict[str, Any]]) -> str:
    """Returns two tables in Markdown: how many models run, and what keeps the rest."""
    counts, reasons = [], []
    for library, distribution in DISTRIBUTIONS.items():
        found = [row for row in rows if row['library'] == library]
        if not found:
            continue
        runs = [row for row in found if not row['problem']]
        untried = [row for row in found if row['problem'] == UNTRIED]
        missing = [row for row in found if row['problem'].startswith('MissingOperator')]
        counts.append(
            [f'{distribution} {_version(library)}']
            + [f'{_configs(part)} of {_configs(found)}' for part in (runs, missing, untried)]
            + [f'{len(runs)} of {len(found)}']
        )
        for problem in sorted({row['problem'] for row in found} - {'', UNTRIED}):
            rest = [row for row in found if row['problem'] == problem]
            reasons.append([distribution, str(_configs(rest)), problem, rest[0]['config']])
    first = markdown_table(
        ('library', 'configs that run', 'want a missing operator', 'not tried', 'structures'),
        counts,
    )
    second = markdown_table(('library', 'configs', 'reason', 'for example'), reasons)
    return f'{first}\n{second}'


def publish(path: Path, text: str) -> None:
    """Puts the tables into their section of a Markdown file."""
    replace_section(path, 'models', text)


def _configs(rows: list[dict[str, Any]]) -> int:
    return sum(row['configs'] for row in rows)


def _version(library: str) -> str:
    return importlib.import_module(library).__version__
