"""The quickstart: from nothing to a detector, a segmentor, a table and pictures in minutes.

Each step leaves its result in the work folder, so a run that was interrupted goes on where it was.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from mmengine.runner import Runner, set_random_seed

from attnpool_backbones.analysis.command import parser_of_figures
from attnpool_backbones.analysis.drawing import save, write_figure
from attnpool_backbones.atomic_files import write_atomically
from attnpool_backbones.datasets import digit_scenes
from attnpool_backbones.experiments.digit_training import (
    TAG_METRICS,
    Result,
    checkpoint_digest,
    labelled,
    make_data,
    pretrain_backbone,
    scene_file,
    train_and_evaluate,
)
from attnpool_backbones.experiments.pooling_probe import collect_maps, evaluate_probe, train_probe
from attnpool_backbones.experiments.prediction_pictures import predictions_picture
from attnpool_backbones.inference.loading import predictor_of
from attnpool_backbones.inference.predictor import Predictor
from attnpool_backbones.launching.latest_checkpoint import find_resumable_checkpoint
from attnpool_backbones.machine import peak_memory
from attnpool_backbones.markdown import markdown_table
from attnpool_backbones.zoo.complexity import count_macs, count_parameters

DETECTOR = 'patchconvnet/mask-rcnn_patchconvnet-nano_slim-fpn_digit-scenes.py'
SEGMENTOR = 'patchconvnet/upernet_patchconvnet-nano_slim_digit-scenes.py'
DETECTION_METRICS = {
    'coco/bbox_mAP': 'bbox mAP',
    'coco/segm_mAP': 'segm mAP',
    **TAG_METRICS,
}
"""Key of the evaluator -> label of the table."""
SEGMENTATION_METRICS = {'mIoU': 'mIoU'}
SHOWN = range(1, 5)
"""Validation scenes in the pictures."""
COLUMNS = ('task', 'model', 'result (%)', 'parameters', 'MACs', 'minutes')
IMAGE_HEAD = dict(loss_weight=1.0)
"""Of the detector."""
POOLINGS = {
    'attention pooling': ('AttentionPoolingHead, a token a class', None),
    'average pooling': (
        'AveragePoolingHead, CAM',
        dict(type='attnpool_backbones.AveragePoolingHead', mlp_ratio=1.0),
    ),
}
"""Name of a row -> its model, and the head's config; both cost about the same."""
PROBE_EPOCHS = 20
GALLERY = {
    'pooling': ('detection', 3, ['--top', '4']),
    'query': ('CoAtNet:nano', 1, ['--head', '0', '--block', '0', '--at', '150,105']),
    'collapse': ('DeepViT:nano', 1, []),
    'gates': ('AttnResNet:sge_resnet_nano', 1, ['--units', 'layer2.1.sge', 'layer3.1.sge']),
}
"""Kind of figure -> a run or a backbone, which is trained on crops; scene; further flags."""
GALLERY_STEPS = 100
PICTURES = ('detection.png', 'segmentation.png', *(f'{kind}.png' for kind in GALLERY))


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
        'detection', DETECTOR, DETECTION_METRICS, work_dir / 'detection', first, tell, IMAGE_HEAD
    )
    tell('detection: pictures')
    picture = predictions_picture(predictor_of_run(runner), images)
    write_figure(picture, work_dir / 'detection.png')
    poolings = probe_pooling(runner, work_dir, tell)

    # The detector's backbone has seen more than the classifier's.
    last = find_resumable_checkpoint(str(work_dir / 'detection'))
    segmentation, runner = train_and_evaluate(
        'segmentation', SEGMENTOR, SEGMENTATION_METRICS, work_dir / 'segmentation', last, tell
    )
    tell('segmentation: pictures')
    truth = [scene_file('annotations', i) for i in SHOWN]
    picture = predictions_picture(predictor_of_run(runner), images, truth)
    write_figure(picture, work_dir / 'segmentation.png')

    draw_gallery(work_dir, tell)

    results = [detection, segmentation, *poolings, classifier]
    write_atomically(table(results).encode(), work_dir / 'results.md')
    content = json.dumps([asdict(result) for result in results], indent=2)
    write_atomically(content.encode(), work_dir / 'results.json')
    return results


def predictor_of_run(runner: Runner) -> Predictor:
    """Returns the trained model of a runner as ``attnpool predict`` would load it."""
    classes = runner.val_dataloader.dataset.metainfo['classes']
    device = str(next(runner.model.parameters()).device)
    return predictor_of(runner.model, runner.cfg, classes, device)


def probe_pooling(runner: Runner, work_dir: Path, tell: Callable[[str], None]) -> list[Result]:
    """Compares attention and average pooling on the detector's frozen maps.

    Args:
        runner: With the trained detector.
        work_dir: Keeps the result, for the checkpoint that the detector has come to.
        tell: Called with lines of progress.

    Returns:
        A row for each kind of class maps.
    """
    stored = work_dir / 'probes.json'
    digest = checkpoint_digest(work_dir / 'detection')
    if stored.exists():
        known = json.loads(stored.read_text())
        # a list: of a version that did not keep whose results these are
        if isinstance(known, dict) and known['checkpoint'] == digest:
            tell(f'pooling: compared before ({stored})')
            return [Result(**row) for row in known['rows']]
    detector = runner.model
    num_classes = len(digit_scenes.CLASSES)
    tell('pooling: collecting the frozen maps')
    # The same order whether the detector was trained just now or earlier.
    set_random_seed(0)
    runner.train_dataloader.sampler.set_epoch(0)
    train = collect_maps(detector, runner.train_dataloader, num_classes)
    val = collect_maps(detector, runner.val_dataloader, num_classes, with_objects=True)
    results = []
    for name, (model, pooling) in POOLINGS.items():
        tell(f'pooling: {name}')
        started = time.monotonic()
        head = train_probe(train, pooling, epochs=PROBE_EPOCHS)
        for use_grad_cam in (False, True)[: 1 + (pooling is not None)]:
            head.use_grad_cam = use_grad_cam
            measured = evaluate_probe(head, val)
            results.append(
                Result(
                    name=f'frozen maps: {name}',
                    model=model.replace('CAM', 'Grad-CAM') if use_grad_cam else model,
                    metrics=labelled(measured, TAG_METRICS),
                    parameters=count_parameters(head),
                    macs=count_macs(lambda head=head: head(val.maps[:1])),
                    minutes=(time.monotonic() - started) / 60,
                    memory=peak_memory() / 2**20,
                    command='attnpool quickstart',
                )
            )
    content = dict(checkpoint=digest, rows=[asdict(row) for row in results])
    write_atomically(json.dumps(content, indent=2).encode(), stored)
    return results


def draw_gallery(work_dir: Path, tell: Callable[[str], None]) -> None:
    """Draws where models look, as `attnpool figure` does.

    The mixers that the detector has not are trained on crops for a few seconds each.

    Args:
        work_dir: Gets the pictures.
        tell: Called with lines of progress.
    """
    for kind, (model, scene, flags) in GALLERY.items():
        family, colon, arch = model.partition(':')
        if not colon:
            command = [kind, str(work_dir / model)]
        else:
            backbone = dict(type=f'attnpool_backbones.{family}', arch=arch)
            pretrain_backbone(backbone, work_dir / kind, tell, steps=GALLERY_STEPS)
            weights = str(work_dir / kind / 'backbone.pth')
            command = [kind, model, '--checkpoint', weights, '--size', '192x192']
        tell(f'pictures: {kind}')
        args = parser_of_figures().parse_args(
            [*command, '--images', str(scene_file('images', scene)), '--limit', '1', *flags]
        )
        save(import_module(f'attnpool_backbones.analysis.{kind}').draw(args), work_dir, kind)


def table(results: list[Result]) -> str:
    """Returns the table in Markdown."""
    return markdown_table(COLUMNS, [cells(result) for result in results])


def cells(result: Result, emphasis: str = '**') -> list[str]:
    """Returns the row of a result.

    Args:
        result: What is in it.
        emphasis: Before and after each metric. Default: Markdown's.
    """
    metrics = ', '.join(
        f'{label} {emphasis}{value:.1f}{emphasis}' for label, value in result.metrics.items()
    )
    notes = ''.join(f' ({label} {value:.1f})' for label, value in result.notes.items())
    return [
        result.name,
        result.model,
        metrics + notes,
        f'{result.parameters / 1e6:.2f} M',
        f'{result.macs / 1e9:.2f} G',
        f'{result.minutes:.1f}',
    ]
