"""Tables and plots of a benchmark: Markdown, CSV, PNG."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import compress
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use('Agg')
from matplotlib import pyplot as plt

from attnpool_backbones.atomic_files import write_atomically
from attnpool_backbones.benchmark.cases import Case, unusual
from attnpool_backbones.benchmark.cost_curves import Curve, cost_curves
from attnpool_backbones.benchmark.operator_table import operator_tables
from attnpool_backbones.benchmark.operators import is_operator
from attnpool_backbones.benchmark.part_times import PARTS
from attnpool_backbones.benchmark.peers import FORMS as PEER_FORMS
from attnpool_backbones.benchmark.suites import Target, measured_value, targets
from attnpool_backbones.command_line import UserError
from attnpool_backbones.markdown import markdown_table, replace_section
from attnpool_backbones.process_memory import KEPT_MEMORY

Row = Mapping[str, Any]

COMPARED = ('plain', 'compiled', 'ResNet-50', 'Swin-T')
"""What a time is compared with, if the same job measured it: the column ``x / ours``."""
PASSES = {'forward': 1, 'backward': 2, 'train': 3}
"""Arithmetic of a task in forward passes."""
UNTABLED = ('key', 'parts', 'origin', 'command')
"""Fields of a result that the CSV leaves out."""
CONDITIONS = tuple(field.name for field in fields(Case) if field.name not in ('model', 'form'))


def matrix_share(row: Row) -> float | None:
    """Returns the share of the machine's matrix rate at which a case computes, None if unknown."""
    if not row['macs']:
        return None
    return 2 * row['macs'] * PASSES[row['task']] / row['seconds'] / row['matrix_rate']


def copy_share(row: Row) -> float | None:
    """Returns the share of the machine's copy rate at which a case's operations touch memory.

    What caches serve counts too, so it can exceed 1; None if unknown.
    """
    if not row['traffic']:
        return None
    return row['traffic'] / row['seconds'] / row['copy_rate']


def ratio(row: Row, rows: Sequence[Row], to: str) -> float | None:
    """Returns the time of what a case is compared with over the case's own.

    Args:
        row: The case.
        rows: All results.
        to: One of :data:`COMPARED`.

    Returns:
        None if nothing of that kind was measured beside it.
    """
    for other in rows:
        if other['key'] != row['key'] or any(other[c] != row[c] for c in CONDITIONS):
            continue
        if to in ('plain', 'compiled'):
            found = other['form'] == to and other['model'] == row['model']
        else:
            found = other['model'] == to
        if found and other is not row:
            return other['seconds'] / row['seconds']
    return None


def markdown_report(results: Sequence[Row], machine: Mapping[str, Any], command: str) -> str:
    """Returns the report.

    Args:
        results: Of :func:`attnpool_backbones.benchmark.run.run_jobs`.
        machine: What they were measured on.
        command: What makes them again.
    """
    times = [row for row in results if row['quantity'] == 'time']
    memory = [row for row in results if row['quantity'] == 'memory']
    parts = ['# Benchmark', f'Measured by `{command}`.', _machine_text(machine, times)]
    reached = _target_table(results, machine)
    if reached:
        parts += ['## Targets', reached]
    costs = gpu_table(times)
    if costs:
        parts += ['## On a GPU', GPU_NOTE, costs]
    peers = peer_table(times)
    if peers:
        parts += ['## Peers', PEER_NOTE, peers]
    if times:
        parts += ['## Times', _time_table(times)]
    shares = _part_table(times)
    if shares:
        parts += ['## Where the time goes', shares]
    if memory:
        parts += ['## Memory', _memory_table(memory)]
    curves = cost_curves(results)
    if curves:
        parts += ['## Cost over resolution', _curve_table(curves)]
    return '\n\n'.join(part.strip() for part in parts) + '\n'


def _machine_text(machine: Mapping[str, Any], times: Sequence[Row]) -> str:
    facts = ', '.join(f'{name} {value}' for name, value in machine.items())
    rates = [
        f'{dtype} matrix products at up to {max(found) / 1e9:.0f} GFLOP/s'
        for dtype in sorted({row['dtype'] for row in times})
        if (found := [row['matrix_rate'] for row in times if row['dtype'] == dtype])
    ]
    if times:
        rates.append(f'copies at up to {max(row["copy_rate"] for row in times) / 1e9:.1f} GB/s')
    return f'{facts}.' + (f'\nIn the same runs: {", ".join(rates)}.' if rates else '')


def _dates(results: Sequence[Row]) -> str:
    dates = sorted(row['date'] for row in results)
    return ' to '.join(dict.fromkeys((dates[0], dates[-1])))


def _rounds_text(times: Sequence[Row]) -> str:
    return ' or '.join(map(str, sorted({row['rounds'] for row in times})))


def _target_table(results: Sequence[Row], machine: Mapping[str, Any]) -> str:
    rows, measured = [], False
    for target in targets():
        value = measured_value(target, results)
        measured |= value is not None
        other = not all(case.is_network for case in target.cases)
        if value is None and other:
            continue  # measured by a suite of their own
        if value is None:
            emulated = any(case.dtype == 'bfloat16' for case in target.cases)
            missing = emulated and not machine['bfloat16_instructions']
            state = 'no bfloat16 instructions here' if missing else 'not measured'
            rows.append([target.text, _bound(target), '-', state])
        else:
            state = 'yes' if target.is_met(value) else '**no**'
            rows.append([target.text, _bound(target), _value(target, value), state])
    return markdown_table(('figure', 'target', 'measured', 'met'), rows) if measured else ''


def _bound(target: Target) -> str:
    sign = 'at least' if target.kind == 'speedup' else 'at most'
    return f'{sign} {_value(target, target.bound)}'


def _value(target: Target, value: float) -> str:
    formats = {
        'added': lambda v: f'{v / 1e6:.1f} MB',
        'speedup': lambda v: f'{v:.2f}x',
        'overhead': lambda v: f'{100 * v:+.1f} %',
        'peak': lambda v: f'{v / 1e9:.2f} GB',
        'exponent': lambda v: f'{v:.2f}',
    }
    return formats[target.kind](value)


def _conditions(row: Row) -> str:
    return ' '.join(['x'.join(map(str, row['size'])), *unusual(row)])


def _time_table(times: Sequence[Row]) -> str:
    header = ('model', 'form', 'task', 'conditions', 'seconds', 'spread', 'rounds', 'fresh GB',
              'of the matrix rate', 'of the copy rate',
              *(f'{name} / this' for name in COMPARED))  # fmt: skip
    rows = []
    for row in times:
        ratios = [ratio(row, times, to) for to in COMPARED]
        rows.append(
            [row['model'], row['form'], row['task'], _conditions(row),
             f'{row["seconds"]:.4g}', f'{100 * row["spread"]:.1f} %', str(row['rounds']),
             _gigabytes(row.get('fresh')),
             _percent(matrix_share(row)), _percent(copy_share(row)),
             *('-' if value is None else f'{value:.2f}' for value in ratios)]
        )  # fmt: skip
    note = (
        'Medians; the spread is the interquartile range over the median. The share of the matrix '
        'rate counts a train step as three forward passes; that of the copy rate counts inputs and '
        'outputs of all operations, those in caches too. Fresh is the memory that a run had to ask '
        'the system for: its page faults are part of the time, and they differ from process to '
        'process with what the allocator has at hand; see --keep-memory. It is not '
        'known where the system gives huge pages.'
    )
    return f'{note}\n\n{markdown_table(header, rows)}'


def _jobs(times: Sequence[Row]) -> Iterable[list[Row]]:
    """Returns the rows of each job, which measured them side by side."""
    jobs: dict[str, list[Row]] = {}
    for row in times:
        jobs.setdefault(row['key'], []).append(row)
    return jobs.values()


def peer_table(times: Sequence[Row]) -> str:
    """Returns a table of ours beside the fastest who runs the same model; empty without any.

    Columns that no row has anything for are left out.

    Args:
        times: Results with seconds. A job has ours and others' rows under one key.
    """
    rows = []
    for found in _jobs(times):
        theirs = [row for row in found if row['form'] in PEER_FORMS]
        ours = [row for row in found if row['form'] == 'ours']
        if not theirs or not ours:
            continue
        # Of a compiled model only ours is measured as it is, too.
        eager = next((row for row in ours if row['compiled'] != theirs[0]['compiled']), None)
        ours = [row for row in ours if row is not eager]
        first, *others = sorted(ours, key=lambda row: row['layout'] != 'contiguous')
        peers = [row for row in theirs if row['form'] not in ('apart', 'yardstick')]
        best = min(peers, key=lambda row: row['seconds'], default=None)
        apart, before = (
            next((row for row in theirs if row['form'] == form), None)
            for form in ('apart', 'yardstick')
        )
        differences = {row['form']: row['difference'] for row in theirs if row is not apart}
        rows.append(
            [first['model'], first['task'],
             _conditions(first), f'{first["seconds"]:.3g}',
             ', '.join(f'{row["seconds"]:.3g}' for row in others) or '-',
             '-' if best is None else f'{best["form"]} {_layout(best)} {best["seconds"]:.3g}',
             '-' if best is None else f'{best["seconds"] / first["seconds"]:.2f}',
             '-' if apart is None or before is None
             else f'{before["seconds"] / apart["seconds"]:.2f}',
             '-' if eager is None else f'{eager["seconds"] / first["seconds"]:.2f}',
             _fastest(first, peers) if peers else '-',
             '; '.join(f'{form} {_difference(value)}' for form, value in differences.items())]
        )  # fmt: skip
    header = ('model', 'task', 'conditions', 'ours s', 'ours channels_last s', 'fastest peer s',
              'theirs / ours', 'yardstick / ours', 'our eager / ours', 'fastest',
              'outputs differ by')  # fmt: skip
    if not rows:
        return ''
    told = [set(column) != {'-'} for column in zip(*rows, strict=True)]
    header, *rows = (list(compress(row, told)) for row in (header, *rows))
    return markdown_table(header, rows)


PEER_NOTE = (
    'Each row is one job: ours as a user gets it, ours after `.to(memory_format=torch.'
    'channels_last)`, and everyone who ships the same model in either layout, '
    'interleaved. The fastest peer is the faster of the two layouts of all of them. The yardstick '
    'is another commit of ours; it and ours beside it run in a process each. Our eager is the '
    'model of a compiled row that is not compiled. Differences are of outputs with equal '
    'weights, relative to the largest value, at 224x224.'
)


def gpu_table(times: Sequence[Row]) -> str:
    """Returns a table of times, kernels and memory of ours beside others; empty without a GPU.

    Args:
        times: Results with seconds. A job has ours and others' (or our plain) rows under one key.
    """
    rows = []
    for found in _jobs([row for row in times if row.get('kernel_seconds') is not None]):
        ours = [row for row in found if row['form'] == 'ours' and row['layout'] == 'contiguous']
        beside = [row for row in found if row['form'] != 'ours']
        for first in ours:
            best = min(beside, key=lambda row: row['seconds'], default=None)
            least = min((row['kernel_seconds'] for row in beside), default=None)
            rows.append(
                [first['model'], first['task'], _conditions(first), _milliseconds(first),
                 *(('-',) * 4 if best is None else
                   (f'{best["form"]} {_layout(best)} {_milliseconds(best)}',
                    f'{best["seconds"] / first["seconds"]:.2f}',
                    f'{least / first["kernel_seconds"]:.2f}',
                    f'{best["taken_bytes"] / first["taken_bytes"]:.2f}'))]
            )  # fmt: skip
    header = ('model', 'task', 'conditions', 'ours: ms, kernels, GB', 'fastest other: ms, kernels, '
              'GB', 'theirs / ours', 'by kernels', 'by memory')  # fmt: skip
    return markdown_table(header, rows) if rows else ''


GPU_NOTE = (
    'Milliseconds of a run and of the kernels in it, and the GB of memory that it takes beside '
    'weights. The fastest other is the fastest by time of everyone who ships the same model, in '
    'NCHW and channels_last, or our formulas as they stand (*plain*) where nobody does. *By '
    'kernels* compares the least kernel time of all of them. A GPU waits between kernels that are '
    'shorter than the processor takes to start them.'
)


def _milliseconds(row: Row) -> str:
    seconds, kernels = (1e3 * row[name] for name in ('seconds', 'kernel_seconds'))
    return f'{seconds:.1f}, {kernels:.1f}, {_gigabytes(row["taken_bytes"])}'


def _part_table(times: Sequence[Row]) -> str:
    header = ('model', 'task', 'conditions', 'seconds', 'first / this', 'backbone', 'neck',
              'heads and the rest', 'loading s')  # fmt: skip
    first: dict[str, Row] = {}
    rows = []
    for row in times:
        if row.get('parts'):
            beside = first.setdefault(row['key'], row)
            found = [row['parts'].get(name, 0) / row['seconds'] for name in PARTS]
            loading = row.get('loading')
            rows.append(
                [Path(row['model']).stem, row['task'], _conditions(row), f'{row["seconds"]:.3g}',
                 f'{beside["seconds"] / row["seconds"]:.2f}',
                 *(_percent(share) for share in (*found, 1 - sum(found))),
                 '-' if loading is None else f'{loading:.2g}']
            )  # fmt: skip
    return f'{PART_NOTE}\n\n{markdown_table(header, rows)}' if rows else ''


PART_NOTE = (
    'Shares are of the seconds of an iteration: forward and backward pass with losses, without the '
    "optimizer's step; or of a prediction with its post-processing. *first* is the first model of "
    'the job, which measured them side by side. Loading is what one worker process needs to read, '
    "decode and transform a photo of 640x480 by the config's pipeline, beside the iteration."
)


def _layout(row: Row) -> str:
    return 'NCHW' if row['layout'] == 'contiguous' else row['layout']


def _fastest(ours: Row, peers: Sequence[Row]) -> str:
    best = min([ours, *peers], key=lambda row: row['seconds'])
    return '**ours**' if best is ours else f'{best["form"]} {_layout(best)}'


def _difference(value: float | None) -> str:
    return 'not comparable' if value is None else f'{value:.0e}'


def _gigabytes(count: float | None) -> str:
    return '-' if count is None else f'{count / 1e9:.2f}'  # results of older versions have none


def _percent(share: float | None) -> str:
    return '-' if share is None else f'{100 * share:.0f} %'


def _memory_table(memory: Sequence[Row]) -> str:
    rows = [
        [row['model'], row['form'], row['task'], _conditions(row),
         _gigabytes(row['peak_bytes']), _gigabytes(row['peak_bytes'] - row['idle_bytes'])]
        for row in memory
    ]  # fmt: skip
    header = ('model', 'form', 'task', 'conditions', 'peak GB', 'of it the run GB')
    note = (
        'Peak of a fresh process (CPU: resident, with libraries and weights; CUDA: allocator), and '
        'what the run added to it.'
    )
    return f'{note}\n\n{markdown_table(header, rows)}'


def _curve_table(curves: Sequence[Curve]) -> str:
    rows = [
        [c.label, c.quantity, f'{c.tokens[0]:.0f} - {c.tokens[-1]:.0f}',
         ', '.join(_cost(c.quantity, value) for value in c.values), f'{c.exponent:.2f}']
        for c in curves
    ]  # fmt: skip
    return markdown_table(('case', 'cost', 'tokens of stride 16', 'values', 'exponent'), rows)


def _cost(quantity: str, value: float) -> str:
    return f'{value:.3g} s' if quantity == 'time' else f'{value / 1e9:.3g} GB'


def csv_report(results: Sequence[Row]) -> str:
    """Returns all results, one a row, with the shares and ratios of the Markdown tables."""
    times = [row for row in results if row['quantity'] == 'time']
    lines = []
    for row in results:
        line = {name: value for name, value in row.items() if name not in UNTABLED}
        line['size'] = 'x'.join(map(str, row['size']))
        if row['quantity'] == 'time':
            line.update(matrix_share=matrix_share(row), copy_share=copy_share(row))
            line.update({f'{to} / this': ratio(row, times, to) for to in COMPARED})
        lines.append(line)
    names = list(dict.fromkeys(name for line in lines for name in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator='\n')
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def speed_plot(results: Sequence[Row]) -> bytes | None:
    """Draws how many times faster cases are than what they are compared with; None if nothing."""
    times = [row for row in results if row['quantity'] == 'time']
    bars = [
        (f'{row["model"]} {row["task"]} {_conditions(row)}, {to} / this', value)
        for row in times
        for to in COMPARED
        if row['form'] == 'ours' and (value := ratio(row, times, to)) is not None
    ]
    if not bars:
        return None
    figure, axes = plt.subplots(figsize=(8, 1 + 0.24 * len(bars)))
    axes.barh([label for label, _ in bars][::-1], [value for _, value in bars][::-1])
    axes.axvline(1, color='black', linewidth=0.8)
    axes.set_xlabel('times as fast')
    axes.tick_params(axis='y', labelsize=7)
    return _png(figure)


def cost_plot(results: Sequence[Row]) -> bytes | None:
    """Draws time and memory over resolution, with the fitted exponents; None if nothing."""
    curves = cost_curves(results)
    if not curves:
        return None
    quantities = [q for q in ('time', 'memory') if any(c.quantity == q for c in curves)]
    figure, panels = plt.subplots(
        1, len(quantities), figsize=(7 * len(quantities), 5.5), squeeze=False
    )
    for quantity, axes in zip(quantities, panels[0], strict=True):
        for curve in (c for c in curves if c.quantity == quantity):
            unit = 1 if quantity == 'time' else 1e9
            values = [value / unit for value in curve.values]
            axes.loglog(curve.tokens, values, marker='o', markersize=3,
                        label=f'{curve.label} ({curve.exponent:.2f})')  # fmt: skip
        axes.set_xlabel('tokens of stride 16')
        axes.set_ylabel('seconds' if quantity == 'time' else 'GB besides weights and libraries')
        axes.legend(fontsize=7, title='exponent in brackets', title_fontsize=7)
    return _png(figure)


def _png(figure: Any) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format='png', dpi=120, bbox_inches='tight')
    plt.close(figure)
    return content.getvalue()


def write_report(
    folder: Path, results: Sequence[Row], machine: Mapping[str, Any], command: str
) -> list[Path]:
    """Writes ``report.md``, ``results.csv``, and the plots that there is something for.

    Returns:
        The files.
    """
    contents = {
        'report.md': markdown_report(results, machine, command).encode(),
        'results.csv': csv_report(results).encode(),
        'speed.png': speed_plot(results),
        'cost.png': cost_plot(results),
    }
    files = []
    for name, content in contents.items():
        if content is not None:
            write_atomically(content, folder / name)
            files.append(folder / name)
    return files


def _allocator(machine: Mapping[str, Any]) -> str:
    kept = KEPT_MEMORY.items() <= machine.items()
    return 'preloaded' if 'preloaded' in machine else 'kept' if kept else 'default'


def _peer_section(times: Sequence[Row], machine: Mapping[str, Any]) -> str:
    if any(row['compiled'] for row in times):
        return 'compiled'
    if machine.get('threads') == 1:
        return 'one-thread'
    dtypes = {row['dtype'] for row in times}
    return _allocator(machine) if 'float32' in dtypes else '-'.join(sorted(dtypes))


def _sections(
    results: Sequence[Row], times: Sequence[Row], machine: Mapping[str, Any]
) -> Iterator[tuple[str, str, str]]:
    """Yields file, section and table of what may be published alone; a table may be empty."""
    if all(is_operator(row['model']) for row in results):
        yield 'operators.md', 'operators', operator_tables(results)
    yield 'gpu.md', 'gpu', gpu_table(times)
    yield 'peers.md', _peer_section(times, machine), peer_table(times)
    yield 'end_to_end.md', 'end-to-end', _part_table(times)
    if not any(row['form'] == 'plain' for row in results):
        yield 'sizes.md', 'sizes', _curve_table(curves) if (curves := cost_curves(results)) else ''


def publish(
    folder: Path,
    results: Sequence[Row],
    machine: Mapping[str, Any],
    command: str,
    root: Path,
    page: Path | None = None,
) -> None:
    """Puts the table of targets and the whole report into ``docs/speed``.

    A report on a process that kept its memory goes to ``docs/speed/kept_memory``, alone. Some
    results have sections of their own: peers in ``docs/speed/peers.md``, named after what is not
    the default in all of them (``compiled``, ``one-thread``, ``bfloat16``), else after the
    allocator; what ran on a GPU in ``docs/speed/gpu.md``; operators in
    ``docs/speed/operators.md``; detectors and segmentors in
    ``docs/speed/end_to_end.md``; models at three sizes or more, without their plain forms, in
    ``docs/speed/sizes.md``.

    Args:
        folder: With a report.
        results: Of the report.
        machine: Of the report.
        command: That of the report.
        root: Of the clone.
        page: Has the places for sections in place of those files, for another machine, say.
            Default: none.

    Raises:
        UserError: None of the targets was measured, or the page has no place for the table.
    """
    times = [row for row in results if row['quantity'] == 'time']
    place = root / 'docs' / 'speed'
    for file, section, table in _sections(results, times, machine):
        if table:
            text = f'{table.strip()}\n\n{_machine_text(machine, times)}\n'
            text += f'Measured by `{command}` on {_dates(results)}.\n'
            if times:
                text += f'Times are medians of {_rounds_text(times)} rounds.\n'
            replace_section(page or place / file, section, text)
            return
    table = _target_table(results, machine)
    if not table:
        raise UserError(f'{folder} has no result of the suite targets to publish')
    if KEPT_MEMORY.items() <= machine.items() and not page:
        place /= 'kept_memory'
    else:
        text = f'{table}\n\n{_machine_text(machine, times)}\nMeasured by `{command}`.\n'
        if times:
            text += f'Times are medians of {_rounds_text(times)} rounds.\n'
        replace_section(page or place / 'README.md', 'speed', text)
    if page:
        return
    for file in write_report(folder, results, machine, command):
        write_atomically(file.read_bytes(), place / file.name)
