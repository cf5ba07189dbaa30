"""What a report holds, whatever the task."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.figure import Figure

__all__ = ['PAIRS', 'Column', 'Contents', 'Pair', 'Picture']

PAIRS = 12
"""Images that a report shows."""


@dataclass(frozen=True)
class Column:
    """A column of the table of classes."""

    title: str
    means: str
    """In words, for whoever reads the page."""
    percent: bool = False
    """Whether its numbers are shares, told in percent."""


@dataclass(frozen=True)
class Picture:
    """A figure, and how to read it."""

    name: str
    """Of the file, without ending."""
    figure: Figure
    reading: str


@dataclass(frozen=True)
class Pair:
    """An image drawn twice: with its labels, and with what the model says."""

    path: str
    words: str
    labels: np.ndarray
    """H, W, 3 uint8 in blue, green, red."""
    predictions: np.ndarray | None = None
    """Likewise; None where the words tell both, and the image is drawn once."""


@dataclass(frozen=True)
class Contents:
    """All that a report tells."""

    summary: Sequence[str]
    """Sentences."""
    columns: Sequence[Column]
    classes: Sequence[Sequence[str | float | None]]
    """Rows of the table, the worst class first: the name and a number for each other column, None
    where there is none."""
    pictures: Sequence[Picture]
    pairs: Sequence[Pair]
    """The images with the most errors, the worst first."""
    doubts: Sequence[str] = ()
    """Labels that are perhaps wrong, in words."""
    numbers: dict[str, Any] = field(default_factory=dict)
    """What is written for programs besides the table."""
