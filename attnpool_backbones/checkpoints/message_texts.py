"""Names, contents and shapes in messages."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MAX_SHOWN = 100  # characters of a name that a stranger's file chose


def printable(text: str) -> str:
    """Returns text of a stranger's file as it may be shown: short, one line, no control codes."""
    shown = ''.join(letter if letter.isprintable() else '?' for letter in text[:MAX_SHOWN])
    return f'{shown}...' if len(text) > MAX_SHOWN else shown


def list_names(names: Iterable, count: int = 6) -> str:
    """Returns the first ``count`` names as text, with the number of those left out."""
    names = [printable(str(name)) for name in names]
    more = f' and {len(names) - count} more' if len(names) > count else ''
    return ', '.join(names[:count]) + more


def list_content(content: Any) -> str:
    """Returns what a checkpoint file holds as text: its keys, or the type of anything else."""
    held = content if isinstance(content, Mapping) else [type(content).__name__]
    return list_names(held) or 'nothing'


def shape_text(shape: Sequence[int]) -> str:
    """Returns a shape as text, e.g. ``64x3x7x7``."""
    return 'x'.join(map(str, shape)) or 'scalar'
