"""Tables of results in Markdown; one that nothing was measured for is empty."""

from collections.abc import Iterable, Sequence
from itertools import compress
from pathlib import Path

from attnpool_backbones.benchmark.cases import conditions
from attnpool_backbones.benchmark.cost_curves import cost_curves
from attnpool_backbones.benchmark.part_times import PARTS
from attnpool_backbones.benchmark.peers import FORMS as PEER_FORMS
from attnpool_backbones.benchmark.relative_speed import (
    COMPARED,
    Row,
    copy_share,
    matrix_share,
    ratio,
)
from attnpool_backbones.markdown import markdown_table


def time_table(times: Sequence[Row]) -> str:
    """Returns times, each beside rates of the machine and what was measured with it."""
    header = ('model', 'form', 'task', 'conditions', 'seconds', 'spread', 'rounds', 'fresh GB',
              'of the matrix rate', 'of the copy rate',
              *(f'{name} / this' for name in COMPARED))  # fmt: skip
    rows = []
    for row in times:
        ratios = [ratio(row, times, to) for to in COMPARED]
        rows.append(
            [row['model'], row['form'], row['task'], conditions(row),
             f'{row["seconds"]:.4g}', f'{100 * row["spread"]:.1f} %', str(row['rounds']),
             _gigabytes(row.get('fresh')),
             _percent(matrix_share(row)), _percent(copy_share(row)),
             *('-' if value is None else f'{value:.2f}' for value in ratios)]
        )  # fmt: skip
    if not rows:
        return ''
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
    """Returns ours beside the fastest who runs the same model.

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
             conditions(first), f'{first["seconds"]:.3g}',
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
    """Returns times, kernels and memory of ours beside others, on a GPU.

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
                [first['model'], first['task'], conditions(first), _milliseconds(first),
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


def part_table(times: Sequence[Row]) -> str:
    """Returns which part of a detector or segmentor takes how long."""
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
                [Path(row['model']).stem, row['task'], conditions(row), f'{row["seconds"]:.3g}',
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


def memory_table(memory: Sequence[Row]) -> str:
    """Returns peaks of memory."""
    rows = [
        [row['model'], row['form'], row['task'], conditions(row),
         _gigabytes(row['peak_bytes']), _gigabytes(row['peak_bytes'] - row['idle_bytes'])]
        for row in memory
    ]  # fmt: skip
    if not rows:
        return ''
    header = ('model', 'form', 'task', 'conditions', 'peak GB', 'of it the run GB')
    note = (
        'Peak of a fresh process (CPU: resident, with libraries and weights; CUDA: allocator), and '
        'what the run added to it.'
    )
    return f'{note}\n\n{markdown_table(header, rows)}'


def curve_table(results: Sequence[Row]) -> str:
    """Returns how costs grow with the size of the image."""
    rows = [
        [c.label, c.quantity, f'{c.tokens[0]:.0f} - {c.tokens[-1]:.0f}',
         ', '.join(_cost(c.quantity, value) for value in c.values), f'{c.exponent:.2f}']
        for c in cost_curves(results)
    ]  # fmt: skip
    header = ('case', 'cost', 'tokens of stride 16', 'values', 'exponent')
    return markdown_table(header, rows) if rows else ''


def _cost(quantity: str, value: float) -> str:
    return f'{value:.3g} s' if quantity == 'time' else f'{value / 1e9:.3g} GB'
