"""Results in the pages of ``docs/speed``."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attnpool_backbones.atomic_files import write_atomically
from attnpool_backbones.benchmark.operators import is_operator
from attnpool_backbones.benchmark.relative_speed import Row
from attnpool_backbones.benchmark.report import machine_text, write_report
from attnpool_backbones.benchmark.tables import curve_table, gpu_table, part_table, peer_table
from attnpool_backbones.benchmark.target_tables import operator_tables, target_table
from attnpool_backbones.command_line import UserError
from attnpool_backbones.markdown import replace_section
from attnpool_backbones.process_memory import KEPT_MEMORY


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
    rounds = f'Times are medians of {_rounds_text(times)} rounds.\n' if times else ''
    place = root / 'docs' / 'speed'
    for file, section, table in _sections(results, times, machine):
        if table:
            text = f'{table.strip()}\n\n{machine_text(machine, times)}\n'
            text += f'Measured by `{command}` on {_dates(results)}.\n{rounds}'
            replace_section(page or place / file, section, text)
            return
    table = target_table(results, machine)
    if not table:
        raise UserError(f'{folder} has no result of the suite targets to publish')
    if KEPT_MEMORY.items() <= machine.items() and not page:
        place /= 'kept_memory'
    else:
        text = f'{table}\n\n{machine_text(machine, times)}\nMeasured by `{command}`.\n{rounds}'
        replace_section(page or place / 'plain_form.md', 'speed', text)
    if page:
        return
    for file in write_report(folder, results, machine, command):
        write_atomically(file.read_bytes(), place / file.name)


def _sections(
    results: Sequence[Row], times: Sequence[Row], machine: Mapping[str, Any]
) -> Iterator[tuple[str, str, str]]:
    """Yields file, section and table of what may be published alone; a table may be empty."""
    if all(is_operator(row['model']) for row in results):
        yield 'operators.md', 'operators', operator_tables(results)
    yield 'gpu.md', 'gpu', gpu_table(times)
    yield 'peers.md', _peer_section(times, machine), peer_table(times)
    yield 'end_to_end.md', 'end-to-end', part_table(times)
    if not any(row['form'] == 'plain' for row in results):
        yield 'sizes.md', 'sizes', curve_table(results)


def _peer_section(times: Sequence[Row], machine: Mapping[str, Any]) -> str:
    if any(row['compiled'] for row in times):
        return 'compiled'
    if machine.get('threads') == 1:
        return 'one-thread'
    dtypes = {row['dtype'] for row in times}
    return _allocator(machine) if 'float32' in dtypes else '-'.join(sorted(dtypes))


def _allocator(machine: Mapping[str, Any]) -> str:
    kept = KEPT_MEMORY.items() <= machine.items()
    return 'preloaded' if 'preloaded' in machine else 'kept' if kept else 'default'


def _dates(results: Sequence[Row]) -> str:
    dates = sorted(row['date'] for row in results)
    return ' to '.join(dict.fromkeys((dates[0], dates[-1])))


def _rounds_text(times: Sequence[Row]) -> str:
    return ' or '.join(map(str, sorted({row['rounds'] for row in times})))
