"""The nano size of every family and of the baselines, trained by one recipe on the digit scenes.

Each backbone learns in a process of its own (so that its memory is its own): crops, then the slim
Mask R-CNN, then the slim UperNet from the detector's backbone, as in the quickstart. What is
finished is kept; an interrupted benchmark goes on where it was.
"""

import csv
import io
import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.registry import DefaultScope
from mmengine.runner import Runner, load_checkpoint

from attnpool_backbones.atomic_files import write_atomically
from attnpool_backbones.checkpoints.door import open_door
from attnpool_backbones.command_line import UserError
from attnpool_backbones.config_files import config_root
from attnpool_backbones.datasets.records import DIGIT_SCENES
from attnpool_backbones.experiments.digit_training import (
    checkpoint_digest,
    make_data,
    pretrain_backbone,
    train_and_evaluate,
)
from attnpool_backbones.launching.config import load_config
from attnpool_backbones.launching.config_models import build_config_model
from attnpool_backbones.launching.latest_checkpoint import find_resumable_checkpoint
from attnpool_backbones.machine import processor_name
from attnpool_backbones.markdown import markdown_table, replace_section
from attnpool_backbones.process_lifetime import end_with_parent
from attnpool_backbones.stopwatch import median_seconds
from attnpool_backbones.zoo.config_names import list_configs
from attnpool_backbones.zoo.metafiles import record_measurement
from attnpool_backbones.zoo.tables import make_outputs

ENTRIES: dict[str, dict[str, str]] = {}
"""Backbone -> its detector's and its segmentor's config."""
for _config in list_configs(config_root()):
    if _config.data_set == DIGIT_SCENES:
        ENTRIES.setdefault(_config.backbone, {})[_config.head] = _config.path

DETECTION = {
    'coco/bbox_mAP': 'bbox mAP',
    'coco/bbox_mAP_s': 'AP small',
    'coco/bbox_mAP_m': 'AP medium',
    'coco/segm_mAP': 'segm mAP',
}
SEGMENTATION = {'mIoU': 'mIoU'}
COLUMNS = {
    'backbone': ('backbone', '{}'),
    'bbox mAP': ('bbox mAP', '{:.1f}'),
    'AP small': ('AP small', '{:.1f}'),
    'AP medium': ('AP medium', '{:.1f}'),
    'segm mAP': ('segm mAP', '{:.1f}'),
    'mIoU': ('mIoU', '{:.1f}'),
    'parameters (M)': ('parameters', '{:.2f}'),
    'MACs (G)': ('macs', '{:.2f}'),
    'images/s': ('images_per_second', '{:.1f}'),
    'memory (MiB)': ('memory', '{:.0f}'),
    'minutes': ('minutes', '{:.1f}'),
}
"""Column of the table -> key of a row and format."""
TIMED_RUNS = 15
WARM_UP = 3
COMMAND = 'python tools/analysis_tools/accuracy_benchmark.py'


def run(work_dir: Path, only: Sequence[str], tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """Trains what is not trained yet and writes ``results.md``, ``.csv`` and ``.png``.

    Args:
        work_dir: Folder of the benchmark; each backbone has a folder in it.
        only: Names among ``ENTRIES``; empty: all.
        tell: Called with a line about each step.

    Returns:
        A row for each finished backbone, those of earlier calls too.

    Raises:
        UserError: An unknown name, or a training that failed.
    """
    for name in only:
        if name not in ENTRIES:
            raise UserError(
                f'no backbone {name!r} in the benchmark; there are {", ".join(ENTRIES)}'
            )
    names = list(only or ENTRIES)
    make_data(tell)
    for number, name in enumerate(names, 1):
        if not (work_dir / name / 'row.json').exists():
            tell(f'[{number}/{len(names)}] {name}')
            command = [sys.executable, '-m', __name__, name, str(work_dir)]
            if _run_to_its_end(command):
                raise UserError(f'the training of {name} failed; call again to go on with it')
    done = [name for name in ENTRIES if (work_dir / name / 'row.json').exists()]
    measure_speeds(work_dir, done, tell)
    rows = read_rows(work_dir)
    write_atomically(markdown(rows).encode(), work_dir / 'results.md')
    write_atomically(comma_separated(rows).encode(), work_dir / 'results.csv')
    write_atomically(picture(rows), work_dir / 'results.png')
    return rows


def _run_to_its_end(command: Sequence[str]) -> int:
    """Runs a process; after Ctrl-C, which reaches it too, waits for what it still has to save."""
    process = subprocess.Popen(command)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.wait()
        raise


def train_one(name: str, work_dir: Path, tell: Callable[[str], None]) -> None:
    """Trains and measures one backbone and writes its ``row.json``."""
    folder = work_dir / name
    detector, segmentor = ENTRIES[name]['mask-rcnn'], ENTRIES[name]['upernet']
    pretrain_backbone(detector, folder / 'pretraining', tell)
    first = str(folder / 'pretraining' / 'backbone.pth')
    detection, _ = train_and_evaluate(
        f'{name} detection', detector, DETECTION, folder / 'detection', first, tell
    )
    last = find_resumable_checkpoint(str(folder / 'detection'))
    segmentation, _ = train_and_evaluate(
        f'{name} segmentation', segmentor, SEGMENTATION, folder / 'segmentation', last, tell
    )
    row = dict(
        backbone=name,
        **detection.metrics,
        **segmentation.metrics,
        parameters=detection.parameters / 1e6,
        macs=detection.macs / 1e9,
        # Each as measured when it was trained, whichever process did that.
        memory=max(detection.memory, segmentation.memory),
        minutes=detection.minutes + segmentation.minutes,
        machine=_training_machine(),
    )
    write_atomically(json.dumps(row, indent=2).encode(), folder / 'row.json')


def measure_speeds(work_dir: Path, names: Sequence[str], tell: Callable[[str], None]) -> None:
    """Measures trained detectors together.

    Nothing is done if ``speeds.json`` has just these checkpoints, measured on this machine.
    """
    stored = work_dir / 'speeds.json'
    digests = {name: checkpoint_digest(work_dir / name / 'detection') for name in names}
    known = json.loads(stored.read_text()) if stored.exists() else {}
    measured = dict(checkpoints=digests, machine=_this_machine())
    if {key: known.get(key) for key in measured} != measured:
        tell(f'measuring the speed of {len(names)} detectors')
        speeds = images_per_second(work_dir, names)
        content = json.dumps(dict(measured, images_per_second=speeds), indent=2)
        write_atomically(content.encode(), stored)


def _training_machine() -> str:
    """Describes this machine with its GPU, which mmengine trains on where there is one."""
    gpu = f'{torch.cuda.get_device_name()}, ' if get_device() == 'cuda' else ''
    return gpu + _this_machine()


def _this_machine() -> str:
    threads = torch.get_num_threads()
    return f'{threads} threads of {processor_name()}, torch {torch.__version__}'


def read_rows(work_dir: Path) -> list[dict[str, Any]]:
    """Returns the rows of the table, of all backbones whose speed is known."""
    speeds = json.loads((work_dir / 'speeds.json').read_text())
    return [
        dict(
            json.loads((work_dir / name / 'row.json').read_text()),
            images_per_second=speed,
            speed_machine=speeds['machine'],
        )
        for name, speed in speeds['images_per_second'].items()
    ]


@torch.no_grad()
def images_per_second(work_dir: Path, names: Sequence[str]) -> dict[str, float]:
    """Measures how many scenes a second detectors answer, one scene at a time.

    They take turns in one process, so that a slower moment of the machine meets all of them.

    Args:
        work_dir: Of :func:`run`, with their checkpoints.
        names: Among :data:`ENTRIES`.

    Returns:
        Name -> images over the median of the seconds.
    """
    open_door()
    steps = {}
    for name in names:
        cfg = load_config(str(config_root() / ENTRIES[name]['mask-rcnn']))
        model = build_config_model(cfg).eval()
        last = find_resumable_checkpoint(str(work_dir / name / 'detection'))
        load_checkpoint(model, last, map_location='cpu')
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            batch = next(iter(Runner.build_dataloader(cfg.val_dataloader)))
        one = {key: values[:1] for key, values in batch.items()}
        steps[name] = partial(model.val_step, one)
    seconds = median_seconds(list(steps.values()), TIMED_RUNS, WARM_UP)
    return {name: 1 / own for name, own in zip(steps, seconds, strict=True)}


def cells(row: dict[str, Any]) -> list[str]:
    """Returns the cells of a row of the table."""
    return [pattern.format(row[key]) for key, pattern in COLUMNS.values()]


def machine_of(row: dict[str, Any]) -> str:
    """Returns the machine that trained, and that of the speed where it is another one."""
    trained, timed = row['machine'], row['speed_machine']
    return trained if trained == timed else f'{trained} (images/s: {timed})'


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the table in Markdown, with the machines under it."""
    table = markdown_table(list(COLUMNS), [cells(row) for row in rows], list(COLUMNS)[1:])
    machines = sorted({machine_of(row) for row in rows})
    return f'{table}\nMachine: {"; ".join(machines)}.\n'


def comma_separated(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the table as CSV, unrounded."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow([*COLUMNS, 'machine'])
    for row in rows:
        writer.writerow([*(row[key] for key, _ in COLUMNS.values()), machine_of(row)])
    return text.getvalue()


def picture(rows: Sequence[dict[str, Any]]) -> bytes:
    """Returns a PNG with accuracy against MACs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    figure = Figure(figsize=(10, 4.2), layout='constrained')
    panels = figure.subplots(1, 2)
    for axes, metric in zip(panels, ('bbox mAP', 'mIoU'), strict=True):
        for row, marker in zip(rows, itertools.cycle('osD^v<>PX*')):
            axes.scatter(row['macs'], row[metric], marker=marker, label=row['backbone'])
        axes.set(xlabel='MACs of the detector (G, 192x192)', ylabel=f'{metric} (%)', xscale='log')
        axes.xaxis.set_major_formatter('{x:g}')
        axes.xaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        axes.xaxis.set_minor_formatter('{x:g}')
        axes.grid(alpha=0.3, which='both')
    # Names beside the points would cover each other.
    figure.legend(*panels[0].get_legend_handles_labels(), loc='outside right center')
    content = io.BytesIO()
    FigureCanvasAgg(figure).print_png(content)
    return content.getvalue()


def publish(work_dir: Path, root: Path) -> None:
    """Puts table and picture into ``docs/benchmark``, results into metafiles and zoo tables.

    Args:
        work_dir: Of :func:`run`.
        root: Of the clone.

    Raises:
        UserError: That page has no place for the table.
        UserError: A metafile that cannot be completed.
    """
    for row in read_rows(work_dir):
        _record(row, root)
    page = root / 'docs' / 'benchmark' / 'README.md'
    replace_section(page, 'benchmark', (work_dir / 'results.md').read_text(encoding='utf-8'))
    for kind in ('png', 'csv'):
        content = (work_dir / f'results.{kind}').read_bytes()
        write_atomically(content, page.parent / f'results.{kind}')
    for output in make_outputs(root):
        if not output.is_current():
            output.write()


def _record(row: dict[str, Any], root: Path) -> None:
    name = row['backbone']
    source = dict(Command=f'{COMMAND} --only {name}', Machine=row['machine'])
    speed = {'Machine': machine_of(row),
             'Images per second': round(row['images_per_second'], 1),
             'Memory (MiB)': round(row['memory'])}  # fmt: skip
    detector, segmentor = (Path(ENTRIES[name][head]).stem for head in ('mask-rcnn', 'upernet'))
    found = {key.removeprefix('coco/'): row[label] for key, label in DETECTION.items()}
    record_measurement(root, detector, found, source | speed)
    found = {key: row[label] for key, label in SEGMENTATION.items()}
    record_measurement(root, segmentor, found, source)


if __name__ == '__main__':
    end_with_parent()
    train_one(sys.argv[1], Path(sys.argv[2]), lambda line: print(line, flush=True))
