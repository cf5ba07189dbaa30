"""The quickstart: from nothing to a detector, a segmentor, a table and pictures in minutes.

Each step leaves its result in the work folder, so a run that was interrupted goes on where it was.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from mmengine.runner import Runner, set_random_seed

from attnpool_backbones.atomic_files import write_atomically
from attnpool_backbones.datasets import digit_scenes
from attnpool_backbones.experiments.digit_training import (
    Result,
    make_data,
    pretrain_backbone,
    scene_file,
    train_and_evaluate,
)
from attnpool_backbones.experiments.pooling_probe import collect_maps, evaluate_probe, train_probe
from attnpool_backbones.experiments.prediction_pictures import (
    attention_picture,
    detection_picture,
    segmentation_picture,
)
from attnpool_backbones.launching.latest_checkpoint import find_resumable_checkpoint
from attnpool_backbones.machine import peak_memory
from attnpool_backbones.markdown import markdown_table, replace_section
from attnpool_backbones.zoo.complexity import count_macs, count_parameters

DETECTOR = 'patchconvnet/mask-rcnn_patchconvnet-nano_slim-fpn_digit-scenes.py'
SEGMENTOR = 'patchconvnet/upernet_patchconvnet-nano_slim_digit-scenes.py'
DETECTION_METRICS = {'coco/bbox_mAP': 'bbox mAP', 'coco/segm_mAP': 'segm mAP'}
"""Key of the evaluator -> label of the table."""
SEGMENTATION_METRICS = {'mIoU': 'mIoU'}
SHOWN = range(1, 7)
"""Validation scenes in the pictures."""
COLUMNS = ('task', 'model', 'result (%)', 'parameters', 'MACs', 'minutes')
PICTURES = ('detection.png', 'segmentation.png', 'attention.png')


def run(work_dir: Path, tell: Callable[[str], None]) -> list[Result]:
    """Does all steps that are not done yet.

    Args:
        work_dir: Folder for checkpoints, logs, pictures and the table.
        tell: Called with a line about each step.

    Returns:
        The rows of the table.
    """
    make_data(tell)
    images = [scene_file('images', i) for i in SHOWN]

    classifier = pretrain_backbone(DETECTOR, work_dir / 'pretraining', tell)
    first = str(work_dir / 'pretraining' / 'backbone.pth')

    detection, runner = train_and_evaluate(
        'detection', DETECTOR, DETECTION_METRICS, work_dir / 'detection', first, tell
    )
    tell('detection: pictures')
    detection_picture(runner.model, images, work_dir / 'detection.png')
    pooling = probe_attention(runner, work_dir, tell)

    # The detector's backbone has seen more than the classifier's.
    last = find_resumable_checkpoint(str(work_dir / 'detection'))
    segmentation, runner = train_and_evaluate(
        'segmentation', SEGMENTOR, SEGMENTATION_METRICS, work_dir / 'segmentation', last, tell
    )
    tell('segmentation: pictures')
    truth = [scene_file('annotations', i) for i in SHOWN]
    segmentation_picture(runner.model, images, truth, work_dir / 'segmentation.png')

    results = [detection, segmentation, pooling, classifier]
    write_atomically(table(results).encode(), work_dir / 'results.md')
    content = json.dumps([asdict(result) for result in results], indent=2)
    write_atomically(content.encode(), work_dir / 'results.json')
    return results


def probe_attention(runner: Runner, work_dir: Path, tell: Callable[[str], None]) -> Result:
    """Trains one class token per digit on the detector's frozen maps and draws where it looks."""
    detector = runner.model
    started = time.monotonic()
    num_classes = len(digit_scenes.CLASSES)
    tell('attention pooling: collecting the frozen maps')
    # The same order and flips whether the detector was trained just now or earlier.
    set_random_seed(0)
    runner.train_dataloader.sampler.set_epoch(0)
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
        memory=peak_memory() / 2**20,
        command='attnpool quickstart',
        notes={'pointing by chance': measured['pointing_chance']},
    )


def table(results: list[Result]) -> str:
    """Returns the table in Markdown."""
    return markdown_table(COLUMNS, [cells(result) for result in results])


def cells(result: Result) -> list[str]:
    """Returns the row of a result."""
    metrics = ', '.join(f'{label} **{value:.1f}**' for label, value in result.metrics.items())
    notes = ''.join(f' ({label} {value:.1f})' for label, value in result.notes.items())
    return [
        result.name,
        result.model,
        metrics + notes,
        f'{result.parameters / 1e6:.2f} M',
        f'{result.macs / 1e9:.2f} G',
        f'{result.minutes:.1f}',
    ]


def publish(work_dir: Path, root: Path) -> None:
    """Puts the table and the pictures of a finished run into the README and ``docs/quickstart``.

    Args:
        work_dir: Of :func:`run`.
        root: Of the clone.

    Raises:
        ValueError: The README has no place for the table.
    """
    replace_section(root / 'README.md', 'quickstart', (work_dir / 'results.md').read_text())
    for name in PICTURES:
        write_atomically((work_dir / name).read_bytes(), root / 'docs' / 'quickstart' / name)
