"""The figures of reports."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

__all__ = ['bars', 'confusion_matrix', 'precision_and_recall']

NUMBERED = 20
"""Rows up to which the cells of a matrix have their numbers."""
NAMED = 60
"""Rows up to which they have their names."""


def confusion_matrix(counts: np.ndarray, names: Sequence[str]) -> Figure:
    """Draws how often which class is taken for which, as shares of the rows.

    Args:
        counts: K, K: labels by predictions.
        names: K.
    """
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(12.0, 3.2 + 0.36 * len(names))
    figure = Figure(figsize=(side, side), layout='constrained')
    axes = figure.subplots()
    axes.imshow(shares, cmap='Blues', vmin=0, vmax=1)
    if len(names) <= NAMED:
        letters = 8 if len(names) <= NUMBERED else 5
        plain = dict(fontsize=letters, parse_math=False)
        axes.set_xticks(range(len(names)), names, rotation=90, **plain)
        axes.set_yticks(range(len(names)), names, **plain)
    if len(names) <= NUMBERED:
        for row, column in zip(*np.nonzero(counts), strict=True):
            share = shares[row, column]
            axes.text(
                column, row, f'{100 * share:.0f}', ha='center', va='center', fontsize=7,
                color='white' if share > 0.5 else 'black',
            )  # fmt: skip
    axes.set_xlabel('the model says')
    axes.set_ylabel('labelled')
    axes.set_title('in percent of the row', fontsize=9)
    return figure


def precision_and_recall(recall: np.ndarray, curves: Mapping[str, np.ndarray]) -> Figure:
    """Draws precision against recall.

    Args:
        recall: R, from 0 to 1.
        curves: R for each name; 0 where a recall is not reached.
    """
    figure = Figure(figsize=(6.4, 4.4), layout='constrained')
    axes = figure.subplots()
    lines = [axes.plot(recall, each, linewidth=1.4)[0] for each in curves.values()]
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel='recall', ylabel='precision')
    axes.grid(alpha=0.3)
    legend = axes.legend(
        lines, list(curves), loc='center left', bbox_to_anchor=(1, 0.5), fontsize=8, frameon=False
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def bars(names: Sequence[str], values: Sequence[float], unit: str) -> Figure:
    """Draws a bar for each name, the first one at the top.

    Args:
        names: N.
        values: N, from 0 on.
        unit: Of the values.
    """
    figure = Figure(figsize=(6.4, 0.7 + 0.34 * len(names)), layout='constrained')
    axes = figure.subplots()
    drawn = axes.barh(names, values, color='C0')
    axes.bar_label(drawn, fmt='%.1f', padding=3, fontsize=8)
    axes.set_xlim(0, 1.15 * max(*values, 1e-9))
    axes.invert_yaxis()
    axes.set_xlabel(unit)
    return figure
