"""Times as shares of what the machine reaches, and as ratios to others measured beside them."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from attnpool_backbones.benchmark.cases import Case

Row = Mapping[str, Any]
"""A result of :func:`attnpool_backbones.benchmark.run.run_jobs`."""
COMPARED = ('plain', 'compiled', 'ResNet-50', 'Swin-T')
"""What a time is compared with, if the same job measured it: the column ``x / ours``."""
PASSES = {'forward': 1, 'backward': 2, 'train': 3}
"""Arithmetic of a task in forward passes."""
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
