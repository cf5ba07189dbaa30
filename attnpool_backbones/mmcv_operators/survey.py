"""Tries the models of mmdet's and mmseg's own configs: whether they build and run.

Configs whose models are made of the same parts, whatever their sizes, are one structure; the
smallest stands for all.
"""

import importlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from attnpool_backbones.atomic_files import write_atomically
from attnpool_backbones.command_line import UserError
from attnpool_backbones.markdown import markdown_table, replace_section
from attnpool_backbones.mmcv_operators.model_trial import (
    SECONDS,
    first_line,
    quiet,
    shipped,
    try_config,
)

SMALL = re.compile(r'r18|r34|r50|r-50|tiny|nano|[-_]s[-_]|b0|small|mobile')
DISTRIBUTIONS = {'mmdet': 'mmdet', 'mmseg': 'mmsegmentation'}
UNTRIED = 'not tried yet'


def find_configs(library: str) -> dict[str, list[Path]]:
    """Returns the configs with a model that a library's wheel ships, by the models' structure."""
    from mmengine.config import Config

    root = shipped(library) / 'configs'
    structures: dict[str, list[Path]] = {}
    for path in sorted(root.rglob('*.py')):
        if '_base_' in path.parts or path.name.startswith('_'):
            continue
        try:
            with quiet():
                model = Config.fromfile(path).get('model')
        except Exception as error:
            reason = first_line(error).partition(', the current sys.path')[0]
            structures.setdefault(f'unreadable: {reason}', []).append(path)
            continue
        if model:
            parts = sorted({f'{key}={kind}' for key, kind in _types(model, '')})
            structures.setdefault(' '.join(parts), []).append(path)
    return structures


def try_structures(
    library: str,
    results: Path,
    say: Callable[[str], None],
    limit: int | None = None,
    again: str | None = None,
    seconds: int = SECONDS,
) -> None:
    """Tries one config of each structure and writes a line for each into a file.

    Args:
        library: ``'mmdet'`` or ``'mmseg'``.
        results: A file of JSON lines. Structures that it has a result of are not tried again.
        say: Is told what goes on.
        limit: Tries no more than so many. Default: all.
        again: Tries what failed for a reason that this regular expression finds again, too.
            Default: nothing.
        seconds: How long a model may take. Default: 240.

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
        elif again and found['problem'] and re.search(again, found['problem']):
            found['problem'] = UNTRIED
        if found is None or found['problem'] == UNTRIED:
            waiting.append((structure, path))
    write_results(rows, results)
    for number, (structure, path) in enumerate(waiting[:limit], 1):
        row = next(r for r in rows if (r['library'], r['structure']) == (library, structure))
        row['problem'] = 'the process ended'  # on disk first: then it is not tried again
        write_results(rows, results)
        row['problem'] = try_config(path, seconds)
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
