"""The quickstart: from nothing to a detector, a segmentor, a table and pictures in minutes.

Each step leaves its result in the work folder, so a run that was interrupted goes on where it was.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from mmengine.runner import Runner

from attnpool_backbones.analysis.complexity import count_macs, count_parameters
from attnpool_backbones.analysis.pooling_probe import collect_maps, evaluate_probe, train_probe
from attnpool_backbones.analysis.prediction_pictures import (
    attention_picture,
    detection_picture,
    segmentation_picture,
)
from attnpool_backbones.config_files import config_root
from attnpool_backbones.datasets import digit_scenes
from attnpool_backbones.engine.atomic_files import write_atomically
from attnpool_backbones.engine.latest_checkpoint import find_resumable_checkpoint
from attnpool_backbones.engine.launch import build_runner, load_config

DATA_ROOT = Path('data/digit_scenes')
#: Name -> (config, metrics of the table: key of the evaluator, label). In this order: the segmentor
#: starts from the detector's backbone.
TASKS = {
    'detection': (
        'patchconvnet/mask-rcnn_patchconvnet-nano_slim-fpn_digit-scenes.py',
        {'coco/bbox_mAP': 'bbox mAP', 'coco/segm_mAP': 'segm mAP'},
    ),
    'segmentation': (
        'patchconvnet/upernet_patchconvnet-nano_slim_digit-scenes.py',
        {'mIoU': 'mIoU'},
    ),
}
#: Iterations of the segmentor. From scratch it would need the 800 of its config.
SEGMENTATION_ITERS = 250
#: Validation scenes in the pictures.
SHOWN = range(1, 7)
PICTURES = ('detection.png', 'segmentation.png', 'attention.png')
#: Evaluators' keys whose values are shares of 1; everything else is in percent.
FRACTIONS = ('coco/',)


@dataclass
class Result:
    """One row of the table."""

    name: str
    model: str
    metrics: dict[str, float]
    """Label -> percent."""
    parameters: int
    macs: int
    """Of one 192x192 scene, heads included."""
    minutes: float
    """Of training and evaluation, since the last start if the run was interrupted."""
    command: str
    """What evaluates this checkpoint again."""
    notes: dict[str, float] = field(default_factory=dict)


def run(work_dir: Path, tell: Callable[[str], None]) -> list[Result]:
    """Does all steps that are not done yet.

    Args:
        work_dir: Folder for checkpoints, logs, pictures and the table.
        tell: Called with a line about each step.

    Returns:
        The rows of the table.
    """
    make_data(tell)
    results = []
    for name in TASKS:
        result, runner = train_and_evaluate(name, work_dir, tell)
        results.append(result)
        tell(f'{name}: pictures')
        images = [scene_file('images', i) for i in SHOWN]
        if name == 'segmentation':
            truth = [scene_file('annotations', i) for i in SHOWN]
            segmentation_picture(runner.model, images, truth, work_dir / 'segmentation.png')
        else:
            detection_picture(runner.model, images, work_dir / 'detection.png')
            results.append(probe_attention(runner, work_dir, tell))
    results.sort(key=lambda result: result.name == 'attention pooling')
    write_atomically(markdown_table(results).encode(), work_dir / 'results.md')
    content = json.dumps([asdict(result) for result in results], indent=2)
    write_atomically(content.encode(), work_dir / 'results.json')
    return results


def make_data(tell: Callable[[str], None]) -> None:
    """Generates the digit scenes, or verifies those that are there."""
    last = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > 5 or done == total:
            last = time.monotonic()
            tell(f'data: {done}/{total} scenes')

    summary = digit_scenes.generate(DATA_ROOT, progress=progress)
    state = 'verified' if summary['reused'] else 'made'
    tell(f'data: {DATA_ROOT} {state}, {summary["train"]} training and {summary["val"]} val scenes')


def scene_file(kind: str, index: int) -> Path:
    """Returns the file of a validation scene; ``kind`` is ``images`` or ``annotations``."""
    return DATA_ROOT / kind / 'validation' / f'{index:06d}.png'


def train_and_evaluate(
    name: str, work_dir: Path, tell: Callable[[str], None]
) -> tuple[Result, Runner]:
    """Trains one of ``TASKS`` to the end, or goes on with it, and evaluates it once.

    Returns:
        The row and the Runner with the trained model in eval mode.
    """
    config, labels = TASKS[name]
    folder = work_dir / name
    cfg = load_config(str(config_root() / config), work_dir=str(folder))
    cfg.log_level = 'WARNING'
    cfg.custom_hooks.append(dict(type='attnpool_backbones.ProgressHook', name=name))
    cfg.default_hooks.pop('visualization')
    cfg.randomness = dict(seed=0)
    # The evaluation is a step of its own here.
    cfg.train_cfg.val_interval = 10**9
    if name == 'segmentation':
        cfg.train_cfg.max_iters = cfg.param_scheduler[-1].end = SEGMENTATION_ITERS
        detector = (work_dir / 'detection' / 'last_checkpoint').read_text().strip()
        cfg.model.backbone.init_cfg = dict(
            type='Pretrained', checkpoint=detector, prefix='backbone.'
        )
    checkpoint = find_resumable_checkpoint(str(folder))
    cfg.resume, cfg.load_from = checkpoint is not None, checkpoint

    started = time.monotonic()
    runner = build_runner(cfg)
    runner.train()
    model = runner.model.eval()
    # What mmdet's and mmseg's inference functions look for.
    model.cfg, model.dataset_meta = cfg, runner.val_dataloader.dataset.metainfo
    stored = folder / 'result.json'
    final = Path((folder / 'last_checkpoint').read_text().strip())
    if stored.exists() and (result := Result(**json.loads(stored.read_text()))).command.endswith(
        final.name
    ):
        tell(f'{name}: trained and evaluated before ({folder})')
        return result, runner

    measured = runner.val()
    minutes = (time.monotonic() - started) / 60
    sample = next(iter(runner.val_dataloader))
    one = {key: values[:1] for key, values in sample.items()}
    result = Result(
        name=name,
        model=f'{type(model).__name__} {type(model.backbone).__name__}-nano',
        metrics={
            label: float(measured[key]) * (100 if key.startswith(FRACTIONS) else 1)
            for key, label in labels.items()
        },
        parameters=count_parameters(model),
        macs=count_macs(lambda: model.val_step(one)),
        minutes=minutes,
        command=f'python tools/test.py configs/{config} {folder / final.name}',
    )
    write_atomically(json.dumps(asdict(result), indent=2).encode(), stored)
    return result, runner


def probe_attention(runner: Runner, work_dir: Path, tell: Callable[[str], None]) -> Result:
    """Trains one class token per digit on the detector's frozen maps and draws where it looks."""
    detector = runner.model
    started = time.monotonic()
    num_classes = len(digit_scenes.CLASSES)
    tell('attention pooling: collecting the frozen maps')
    train = collect_maps(detector, runner.train_dataloader, num_classes)
    val = collect_maps(detector, runner.val_dataloader, num_classes)
    tell(f'attention pooling: training {num_classes} class tokens')
    head = train_probe(train)
    measured = evaluate_probe(head, val)
    minutes = (time.monotonic() - started) / 60

    with torch.no_grad():
        maps = head(val.maps[: SHOWN[-1]], return_maps=True).maps.numpy()
    shown = [i - 1 for i in SHOWN]
    attention_picture(
        [scene_file('images', i) for i in SHOWN],
        [maps[i] for i in shown],
        [np.unique(val.classes[i].numpy()) for i in shown],
        digit_scenes.CLASSES,
        work_dir / 'attention.png',
    )
    return Result(
        name='attention pooling',
        model='AttentionPoolingHead on the frozen detector',
        metrics={'image mAP': measured['image_mAP'], 'pointing': measured['pointing']},
        parameters=count_parameters(head),
        macs=count_macs(lambda: head(val.maps[:1])),
        minutes=minutes,
        command='python tools/quickstart.py',
        notes={'pointing by chance': measured['pointing_chance']},
    )


def markdown_table(results: list[Result]) -> str:
    """Returns the table in Markdown."""
    lines = [
        '| task | model | result (%) | parameters | MACs | minutes |',
        '|---|---|---|---|---|---|',
    ]
    for r in results:
        metrics = ', '.join(f'{label} **{value:.1f}**' for label, value in r.metrics.items())
        notes = ''.join(f' ({label} {value:.1f})' for label, value in r.notes.items())
        lines.append(
            f'| {r.name} | {r.model} | {metrics}{notes} | {r.parameters / 1e6:.2f} M '
            f'| {r.macs / 1e9:.2f} G | {r.minutes:.1f} |'
        )
    return '\n'.join(lines) + '\n'


def publish(work_dir: Path, root: Path) -> None:
    """Puts the table and the pictures of a finished run into the README and ``docs/quickstart``.

    Args:
        work_dir: Of :func:`run`.
        root: Of the clone.

    Raises:
        ValueError: The README has no place for the table.
    """
    readme = root / 'README.md'
    text = readme.read_text()
    start, end = '<!-- quickstart -->\n', '<!-- /quickstart -->'
    if start not in text or end not in text:
        raise ValueError(f'{readme} lacks the lines {start!r} and {end!r}')
    before, rest = text.split(start)
    after = rest[rest.index(end) :]
    table = (work_dir / 'results.md').read_text()
    write_atomically(f'{before}{start}{table}{after}'.encode(), readme)
    for name in PICTURES:
        write_atomically((work_dir / name).read_bytes(), root / 'docs' / 'quickstart' / name)
