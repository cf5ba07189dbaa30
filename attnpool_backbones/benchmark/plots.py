"""Pictures of results."""

import io
from collections.abc import Sequence

from matplotlib.figure import Figure

from attnpool_backbones.benchmark.cases import conditions
from attnpool_backbones.benchmark.cost_curves import cost_curves
from attnpool_backbones.benchmark.relative_speed import COMPARED, Row, ratio


def speed_plot(results: Sequence[Row]) -> bytes | None:
    """Draws how many times faster cases are than what they are compared with; None if nothing."""
    times = [row for row in results if row['quantity'] == 'time']
    bars = [
        (f'{row["model"]} {row["task"]} {conditions(row)}, {to} / this', value)
        for row in times
        for to in COMPARED
        if row['form'] == 'ours' and (value := ratio(row, times, to)) is not None
    ]
    if not bars:
        return None
    figure = Figure(figsize=(8, 1 + 0.24 * len(bars)))
    axes = figure.subplots()
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
    figure = Figure(figsize=(7 * len(quantities), 5.5))
    panels = figure.subplots(1, len(quantities), squeeze=False)[0]
    for quantity, axes in zip(quantities, panels, strict=True):
        for curve in (c for c in curves if c.quantity == quantity):
            unit = 1 if quantity == 'time' else 1e9
            values = [value / unit for value in curve.values]
            axes.loglog(curve.tokens, values, marker='o', markersize=3,
                        label=f'{curve.label} ({curve.exponent:.2f})')  # fmt: skip
        axes.set_xlabel('tokens of stride 16')
        axes.set_ylabel('seconds' if quantity == 'time' else 'GB besides weights and libraries')
        axes.legend(fontsize=7, title='exponent in brackets', title_fontsize=7)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format='png', dpi=120, bbox_inches='tight')
    return content.getvalue()
