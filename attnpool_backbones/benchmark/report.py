"""The report of a benchmark: Markdown, CSV, PNG."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attnpool_backbones.atomic_files import write_atomically
from attnpool_backbones.benchmark.cases import size_text
from attnpool_backbones.benchmark.plots import cost_plot, speed_plot
from attnpool_backbones.benchmark.relative_speed import (
    COMPARED,
    Row,
    copy_share,
    matrix_share,
    ratio,
)
from attnpool_backbones.benchmark.tables import (
    GPU_NOTE,
    PEER_NOTE,
    curve_table,
    gpu_table,
    memory_table,
    part_table,
    peer_table,
    time_table,
)
from attnpool_backbones.benchmark.target_tables import target_table

UNTABLED = ('key', 'parts', 'origin', 'command')
"""Fields of a result that the CSV leaves out."""


def markdown_report(results: Sequence[Row], machine: Mapping[str, Any], command: str) -> str:
    """Returns the report.

    Args:
        results: Of :func:`attnpool_backbones.benchmark.run.run_jobs`.
        machine: What they were measured on.
        command: What makes them again.
    """
    times = [row for row in results if row['quantity'] == 'time']
    memory = [row for row in results if row['quantity'] == 'memory']
    sections = (
        ('Targets', target_table(results, machine)),
        ('On a GPU', GPU_NOTE, gpu_table(times)),
        ('Peers', PEER_NOTE, peer_table(times)),
        ('Times', time_table(times)),
        ('Where the time goes', part_table(times)),
        ('Memory', memory_table(memory)),
        ('Cost over resolution', curve_table(results)),
    )
    parts = ['# Benchmark', f'Measured by `{command}`.', machine_text(machine, times)]
    for title, *texts in sections:
        if texts[-1]:
            parts += [f'## {title}', *texts]
    return '\n\n'.join(part.strip() for part in parts) + '\n'


def machine_text(machine: Mapping[str, Any], times: Sequence[Row]) -> str:
    """Returns what results were measured on, and the rates that it reached meanwhile.

    Args:
        machine: Of :func:`attnpool_backbones.benchmark.run.run_jobs`.
        times: Results with seconds.
    """
    facts = ', '.join(f'{name} {value}' for name, value in machine.items())
    rates = [
        f'{dtype} matrix products at up to '
        f'{max(row["matrix_rate"] for row in times if row["dtype"] == dtype) / 1e9:.0f} GFLOP/s'
        for dtype in sorted({row['dtype'] for row in times})
    ]
    if times:
        rates.append(f'copies at up to {max(row["copy_rate"] for row in times) / 1e9:.1f} GB/s')
    return f'{facts}.' + (f'\nIn the same runs: {", ".join(rates)}.' if rates else '')


def csv_report(results: Sequence[Row]) -> str:
    """Returns all results, one a row, with the shares and ratios of the Markdown tables."""
    times = [row for row in results if row['quantity'] == 'time']
    lines = []
    for row in results:
        line = {name: value for name, value in row.items() if name not in UNTABLED}
        line['size'] = size_text(row['size'])
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
