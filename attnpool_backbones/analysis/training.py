"""Losses, learning rate and scores of runs as they went.

    attnpool figure training work_dirs/RUN
    attnpool figure training work_dirs/RUN_A work_dirs/RUN_B --metric bbox_mAP

The logs of all times that a run was started are put together: what was trained and given up again
by going back is left out. One run is drawn with the parts of its loss, several with the whole.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from attnpool_backbones.analysis.drawing import Drawing
from attnpool_backbones.analysis.run_logs import History, history_of, in_percent
from attnpool_backbones.command_line import UserError, given_name

__all__ = ['TAKES_IMAGES', 'add_arguments', 'draw']

TAKES_IMAGES = False
MAIN = ('bbox_mAP', 'segm_mAP', 'mIoU', 'accuracy/top1', 'tags/mAP')
"""Metrics that are drawn if none is named, those that a run has; else all that it has."""
SMOOTHED = 0.02
"""Share of a run over which its losses are averaged, as the thick line."""
NO_METRIC = ('step', 'time', 'data_time')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of this kind."""
    add = parser.add_argument
    add('runs', nargs='+', type=given_name, metavar='RUN', help='folders of runs')
    add('--metric', nargs='+', metavar='NAME', help='scores to draw, such as bbox_mAP_50 '
        f'(default: those of {", ".join(MAIN)} that a run has)')  # fmt: skip


def draw(args: argparse.Namespace) -> Drawing:
    """Draws the figure."""
    histories = {run: history_of(Path(run)) for run in dict.fromkeys(args.runs)}
    names = _metrics(histories, args.metric)
    figure = Figure(figsize=(5.2 * (2 + bool(names)), 4.2), layout='constrained')
    panels = figure.subplots(1, 2 + bool(names), squeeze=False)[0]
    alone = len(histories) == 1
    for run, history in histories.items():
        _losses(panels[0], run, history, with_parts=alone)
        label = 'learning rate' if alone else run
        panels[1].plot(*_curve(history.training, 'lr'), label=label, linewidth=1.2)
        for name in names:
            steps, values = _scores(history, name)
            if len(steps):
                label = name if alone else f'{name}, {run}' if len(names) > 1 else run
                panels[2].plot(steps, values, 'o-', markersize=3, label=label, linewidth=1.2)
    panels[0].set(xlabel='iteration', ylabel='loss', yscale='log')
    panels[1].set(xlabel='iteration', ylabel='learning rate')
    if names:
        counted = {history.counts_epochs for history in histories.values()}
        unit = {(True,): 'epoch', (False,): 'iteration'}.get(tuple(counted), 'epoch or iteration')
        panels[2].set(xlabel=unit, ylabel=f'{names[0]} (%)' if len(names) == 1 else 'score (%)')
        panels[2].xaxis.set_major_locator(MaxNLocator(integer=True))
    for panel in panels:
        panel.grid(alpha=0.3)
        if panel.get_lines():
            panel.legend(fontsize=7, frameon=False)
    return Drawing(
        figure,
        dict(runs={run: _numbers(history, names) for run, history in histories.items()}),
        ' '.join(_words(run, history, names) for run, history in histories.items()),
    )


def _metrics(histories: dict[str, History], wanted: Sequence[str] | None) -> list[str]:
    """Returns the whole names of the metrics to draw."""
    there = {
        key: None
        for history in histories.values()
        for entry in history.validations
        for key, value in entry.items()
        if key not in NO_METRIC and isinstance(value, (int, float))
    }
    if not wanted:
        main = [key for key in there if key in MAIN or key.rpartition('/')[2] in MAIN[:3]]
        return main or list(there)
    found = []
    for name in wanted:
        whole = [key for key in there if name in (key, key.rpartition('/')[2])]
        if not whole:
            raise UserError(
                f'--metric {name}: no validation has it, but {", ".join(there) or "nothing"}'
            )
        found += whole
    return list(dict.fromkeys(found))


def _curve(entries: Sequence[dict[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns steps and values of what has the key; -1 is COCO's word for no objects."""
    known = [(e['step'], e[key]) for e in entries if e.get(key) is not None and e[key] != -1]
    steps, values = zip(*known, strict=True) if known else ((), ())
    return np.array(steps), np.array(values, np.float64)


def _scores(history: History, metric: str) -> tuple[np.ndarray, np.ndarray]:
    steps, values = _curve(history.validations, metric)
    return steps, in_percent(metric, values)


def _losses(axes: Axes, run: str, history: History, with_parts: bool) -> None:
    steps, values = _curve(history.training, 'loss')
    (line,) = axes.plot(steps, values, alpha=0.3, linewidth=0.8)
    axes.plot(steps, _smoothed(values), color=line.get_color(), linewidth=1.8,
              label='loss' if with_parts else run)  # fmt: skip
    keys = dict.fromkeys(key for entry in history.training for key in entry)
    for key in keys if with_parts else ():
        if key != 'loss' and 'loss' in key:
            steps, values = _curve(history.training, key)
            axes.plot(steps, _smoothed(values), linewidth=0.9, label=key)


def _smoothed(values: np.ndarray) -> np.ndarray:
    """Averages each value with the ones before it; those that are not finite are left out."""
    width = max(1, round(SMOOTHED * len(values)))
    known = np.isfinite(values)
    sums = np.cumsum(np.concatenate([np.zeros(1), np.where(known, values, 0)]))
    counts = np.cumsum(np.concatenate([np.zeros(1), known]))
    end = np.arange(1, len(values) + 1)
    start = np.maximum(end - width, 0)
    with np.errstate(invalid='ignore'):  # 0 / 0 where none is known
        return (sums[end] - sums[start]) / (counts[end] - counts[start])


def _numbers(history: History, names: Sequence[str]) -> dict[str, Any]:
    curves = {'loss': _curve(history.training, 'loss'), 'lr': _curve(history.training, 'lr')}
    curves |= {name: _scores(history, name) for name in names}
    return {name: dict(step=steps, value=values) for name, (steps, values) in curves.items()}


def _words(run: str, history: History, names: Sequence[str]) -> str:
    """Says what was best when."""
    curves = ((name, *_scores(history, name)) for name in names)
    name, steps, values = next((c for c in curves if len(c[1])), ('', (), ()))
    if not name:
        return f'{run}: no validation yet.'
    best = int(np.argmax(np.nan_to_num(values, nan=-np.inf)))
    unit = 'epoch' if history.counts_epochs else 'iteration'
    words = f'{run}: {name} was best with {values[best]:.1f} % at {unit} {steps[best]}'
    if best < len(steps) - 1:
        return f'{words}, and is {values[-1]:.1f} % at {unit} {steps[-1]}.'
    return f'{words}, the last validation: it may rise further.' if best else f'{words}.'
