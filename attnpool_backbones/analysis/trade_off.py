"""Accuracy against parameters, MACs, memory and time, with the Pareto front.

    attnpool figure trade-off docs/benchmark/results.csv --metric bbox_mAP
    attnpool figure trade-off work_dirs/RUN_A work_dirs/RUN_B --metric mIoU --input 512x512
    attnpool figure trade-off --published 'mask-rcnn_*_coco' --metric bbox_mAP

Rows come from tables (CSV files as `make benchmark` writes them), from folders of runs, and from
the published numbers in the metafiles of configs, which are drawn hollow: others measured them.
"""

import argparse
import csv
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnpool_backbones.analysis.drawing import Drawing
from attnpool_backbones.analysis.run_logs import in_percent, logs_of, read_scalars
from attnpool_backbones.command_line import UserError

__all__ = ['Row', 'add_arguments', 'draw', 'pareto_front']

TAKES_IMAGES = False
COSTS = ('parameters (M)', 'MACs (G)', 'memory (MiB)', 'time (ms)')
HEADS = ('decode_head', 'bbox_head', 'roi_head')
"""Of models whose MACs can be counted."""

CORNERS = ((4, 4), (4, -4), (-4, 4), (-4, -4))
"""Where a number may stand beside its point, in points; the first is taken where all have room."""
ROOM = 12
"""Points of distance from all else that are enough for a number."""
NAME_COLUMNS = 2
"""Of the legend, for each panel of the figure but the first."""
OTHER_INPUT = (800, 1344)
"""Height and width of the image that MACs are counted for where nothing tells it, in pixels."""
SIZES = (
    ' The MACs are of images of several sizes, or of sizes that a table does not tell: compare '
    'them within one size.'
)
READING = (
    'Numbers stand for the names below. Higher is better, further left is cheaper; no model on the '
    'line is beaten by one that is both better and cheaper. Filled: measured here; hollow: '
    'published by others, perhaps under other conditions.'
)


@dataclass(frozen=True)
class Row:
    """A model with its accuracy and what it costs."""

    name: str
    accuracy: float
    """In percent."""
    origin: str
    """``'measured'``, or the source of a published number."""
    costs: dict[str, float] = field(default_factory=dict)
    """By the names of :data:`COSTS`; those that nobody knows are left out."""
    macs_input: str | None = None
    """Size of the image that the MACs are of, as ``'800x1280'``; None: not known."""


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Returns the indices of the points that no other beats, cheapest first.

    Args:
        points: Cost and accuracy of each. One beats another if it is no worse in both and better
            in one; of equal points the first stays.
    """
    front: list[int] = []
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not front or points[index][1] > points[front[-1]][1]:
            front.append(index)
    return front


def rows_of_table(file: Path, metric: str) -> list[Row]:
    """Reads a CSV file: the first column names the model, the metric is a column.

    Raises:
        UserError: There is no such column, or nothing in it.
    """
    try:
        with file.open(newline='', encoding='utf-8') as lines:
            table = list(csv.DictReader(lines, restkey='more'))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f'{file}: no table of text ({error})') from error
    entries = [{key.replace(' mAP', '_mAP'): v for key, v in row.items()} for row in table]
    if not entries or metric not in entries[0]:
        columns = ', '.join(entries[0]) if entries else 'no rows'
        raise UserError(f'{file}: no column {metric}; it has {columns}')
    rows = []
    for entry in entries:
        if not entry[metric]:
            continue
        try:
            costs = {name: float(entry[name]) for name in COSTS[:3] if entry.get(name)}
            if entry.get('images/s'):
                costs['time (ms)'] = 1000 / float(entry['images/s'])
            value = float(entry[metric])
        except (ValueError, ZeroDivisionError) as error:
            raise UserError(f'{file}: {error} in the row of {entry}'[:300]) from error
        rows.append(Row(next(iter(entry.values())), value, 'measured', costs))
    return rows


def row_of_run(folder: Path, metric: str, size: tuple[int, int] | None = None) -> Row:
    """Reads a run: its best validation, and the size of its model.

    Args:
        folder: Of the run, with its config and log.
        metric: Such as ``'bbox_mAP'`` or ``'mIoU'``, or with what stands before it in the log:
            ``'coco/bbox_mAP'``.
        size: Height and width of the image that MACs are counted for, in pixels. Default: that of
            the data set which the name of the config tells, else 800x1344.

    Raises:
        UserError: There is no config, or no validation with the metric, or several metrics have
            the name, or a log is damaged, or it is a classifier, say, whose MACs are not counted.
    """
    from attnpool_backbones.inference.loading import config_of_run
    from attnpool_backbones.launching.config import load_config
    from attnpool_backbones.zoo.config_names import config_name
    from attnpool_backbones.zoo.config_sizes import measure_model

    values, seen = defaultdict(list), set()
    for log in logs_of(folder):
        for scalars in read_scalars(log):
            if 'loss' in scalars:  # of a batch of the training, whatever else it tells
                continue
            for key, value in scalars.items():
                seen.add(key)
                if metric in (key, key.rpartition('/')[2]):
                    values[key].append(value)
    if not values:
        there = ', '.join(sorted(seen)) or 'nothing'
        raise UserError(f'{folder}: its logs have no validation with {metric}, but {there}')
    if len(values) > 1:
        raise UserError(
            f'{folder}: --metric {metric} may be {" or ".join(sorted(values))}; say which'
        )
    ((key, accuracies),) = values.items()
    best = float(in_percent(key, accuracies).max())
    config = config_of_run(folder)
    cfg = load_config(str(config))
    if not any(head in cfg.model for head in HEADS):
        raise UserError(
            f'{folder}: MACs are counted of detectors and segmentors with {", ".join(HEADS)}, not '
            f'of {cfg.model.type}; give its numbers as a table (CSV)'
        )
    if size is None:
        try:
            size = config_name(config).data_set.input_size
        except UserError:  # one of a user's
            size = OTHER_INPUT
    counted = measure_model(cfg, *size)
    costs = {'parameters (M)': counted.parameters / 1e6, 'MACs (G)': counted.macs / 1e9}
    return Row(folder.name, best, 'measured', costs, '{}x{}'.format(*size))


def published_rows(pattern: str, metric: str) -> list[Row]:
    """Reads the published numbers of configs.

    Args:
        pattern: Of the configs' names, as a shell has it; models that families are compared with
            have names of the same form.
        metric: Such as ``'bbox_mAP'``.

    Raises:
        UserError: No config of such a name has such a number.
    """
    from attnpool_backbones.config_files import config_root
    from attnpool_backbones.zoo.compared_models import read_compared_models
    from attnpool_backbones.zoo.metafiles import FILE_NAME, read_metafile
    from attnpool_backbones.zoo.sources import read_sources, shown_entries

    sources = read_sources(config_root())
    rows = []
    for file in sorted(config_root().glob(f'*/{FILE_NAME}')):
        for model in read_metafile(file)['Models']:
            if not fnmatch(model['Name'], pattern):
                continue
            facts = model['Metadata']
            costs = {'parameters (M)': facts['Parameters'] / 1e6, 'MACs (G)': facts['MACs'] / 1e9}
            rows += [
                Row(model['Name'], float(metrics[metric]), source.name, costs, facts['MACs Input'])
                for source, metrics in shown_entries(model, sources) if metric in metrics
            ]  # fmt: skip
        for other in read_compared_models(file.parent, sources):
            if fnmatch(other.name, pattern) and metric in other.metrics:
                costs = {'parameters (M)': other.parameters} if other.parameters else {}
                value = float(other.metrics[metric])
                rows.append(Row(other.name, value, other.source.name, costs))
    if not rows:
        raise UserError(f'--published {pattern}: no config of such a name has a published {metric}')
    return rows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of this kind."""
    from attnpool_backbones.analysis.command import image_size

    add = parser.add_argument
    add('sources', nargs='*', metavar='SOURCE', help='CSV files and folders of runs')
    add('--published', nargs='+', default=[], metavar='PATTERN', help='names of configs')
    add('--metric', default='bbox_mAP', help='bbox_mAP, segm_mAP, mIoU (default: %(default)s)')
    add(
        '--input', type=image_size, metavar='HxW',
        help='of the image that the MACs of runs are counted for (default: that of the published '
        'models, if they have one size, else of the data set that the name of the config tells, '
        'else 800x1344)',
    )  # fmt: skip


def draw(args: argparse.Namespace) -> Drawing:
    """Draws the figure."""
    published = [row for name in args.published for row in published_rows(name, args.metric)]
    size = (args.input, args.input) if isinstance(args.input, int) else args.input
    sizes = _inputs(published)
    if size is None and len(sizes) == 1:
        size = tuple(map(int, sizes.pop().split('x')))
    rows: list[Row] = []
    for source in map(Path, args.sources):
        if source.is_dir():
            rows.append(row_of_run(source, args.metric, size))
        elif source.is_file():
            rows += rows_of_table(source, args.metric)
        else:
            raise UserError(f'{source}: no table and no folder of a run')
    rows += published
    if not rows:
        raise UserError('nothing to draw: name tables, runs, or --published configs')
    known = [cost for cost in COSTS if sum(cost in row.costs for row in rows) > 1 or len(rows) == 1]
    known = [cost for cost in known if any(cost in row.costs for row in rows)]
    if not known:
        raise UserError(
            f'nothing to compare: no two of {", ".join(row.name for row in rows)} have one of '
            f'{", ".join(COSTS)} in common'
            if len(rows) > 1
            else f'{rows[0].name} has none of {", ".join(COSTS)}'
        )
    columns = max(1, NAME_COLUMNS * (len(known) - 1))
    names = -(-len(rows) // columns)
    figure = Figure(figsize=(5.2 * len(known), 4.4 + 0.14 * names), layout='constrained')
    fronts = {}
    marks: dict[int, Any] = {}
    for axes, cost in zip(figure.subplots(1, len(known), squeeze=False)[0], known, strict=True):
        fronts[cost] = _panel(axes, cost, rows, marks)
        axes.set_ylabel(args.metric, fontsize=8)
    # names beside their points would lie over one another
    figure.legend(
        handles=[marks[index] for index in sorted(marks)], loc='outside lower center',
        ncols=columns, fontsize=6, frameon=False,
    )  # fmt: skip
    numbers = dict(metric=args.metric, rows=[asdict(row) for row in rows], fronts=fronts)
    mixed = 'MACs (G)' in known and len(_inputs(rows)) > 1
    return Drawing(figure, numbers, READING + SIZES * mixed)


def _inputs(rows: Sequence[Row]) -> set[str | None]:
    """Returns the sizes of image that the MACs of rows are of."""
    return {row.macs_input for row in rows if 'MACs (G)' in row.costs}


def _panel(axes: Any, cost: str, rows: Sequence[Row], marks: dict[int, Any]) -> list[str]:
    """Draws accuracy against a cost.

    Args:
        axes: Where.
        cost: One of :data:`COSTS`.
        rows: Of all panels; those without the cost are left out.
        marks: Gets a mark, labelled with number and name, for the index of each row that is drawn.

    Returns:
        The names on the front.
    """
    drawn = [index for index, row in enumerate(rows) if cost in row.costs]
    points = [(rows[index].costs[cost], rows[index].accuracy) for index in drawn]
    inputs = _inputs(rows) if cost == 'MACs (G)' else set()
    front = pareto_front(points)
    axes.plot(*zip(*(points[i] for i in front), strict=True), color='grey', linewidth=1, zorder=0)
    for index, (x, y) in zip(drawn, points, strict=True):
        filled = rows[index].origin == 'measured'
        (marks[index],) = axes.plot(
            x, y, 'o', color='C0' if filled else 'C1', fillstyle='full' if filled else 'none',
            label=_label(index, rows),
        )  # fmt: skip
    axes.margins(0.08)  # for the numbers
    _number(axes, points, [index + 1 for index in drawn])
    sizes = ', '.join(sorted(size or 'size not told' for size in inputs))
    axes.set_xlabel(f'{cost} at {sizes}' if any(inputs) else cost, fontsize=8)
    return [rows[drawn[i]].name for i in front]


def _label(index: int, rows: Sequence[Row]) -> str:
    """Returns number and name of a row, with the size of its image where rows have several."""
    row = rows[index]
    size = f', MACs at {row.macs_input}' if row.macs_input and len(_inputs(rows)) > 1 else ''
    return f'{index + 1}  {row.name}{size}'


def _number(axes: Axes, points: Sequence[tuple[float, float]], numbers: Sequence[int]) -> None:
    """Writes numbers beside points, each at the corner that is furthest from all else.

    Args:
        axes: Where the points are drawn, so that its limits are known.
        points: Cost and accuracy of each; equal points share a text.
        numbers: Of the points.
    """
    texts: dict[tuple[float, float], str] = {}
    for point, number in zip(points, numbers, strict=True):
        texts[point] = f'{texts[point]}, {number}' if point in texts else str(number)
    axes.autoscale_view()  # else the limits are set when it is drawn
    pixels_a_point = axes.figure.dpi / 72
    places = axes.transData.transform(list(texts)) / pixels_a_point
    taken = list(places)
    for index, (point, text) in enumerate(texts.items()):
        place = places[index]
        others = np.array(taken[:index] + taken[index + 1 :]).reshape(-1, 1, 2)
        middles = place + np.multiply(CORNERS, 1.6)
        room = np.hypot(*np.moveaxis(middles - others, 2, 0)).min(0, initial=ROOM)
        best = int(room.argmax())
        corner = CORNERS[best]
        taken.append(middles[best])
        axes.annotate(
            text, point, xytext=corner, textcoords='offset points', fontsize=7,
            ha='left' if corner[0] > 0 else 'right', va='bottom' if corner[1] > 0 else 'top',
        )  # fmt: skip
