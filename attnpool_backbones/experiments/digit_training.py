"""Detectors and segmentors on the digit scenes: pretraining, training and evaluation as steps.

Each step leaves its result in its folder, so a run that was interrupted goes on where it was.
"""

import hashlib
import json
import shlex
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmengine.runner import Runner, set_random_seed

from attnpool_backbones.atomic_files import write_atomically
from attnpool_backbones.checkpoints.door import open_door
from attnpool_backbones.command_line import UserError
from attnpool_backbones.config_files import config_root
from attnpool_backbones.config_types import type_name
from attnpool_backbones.datasets import digit_scenes
from attnpool_backbones.datasets.object_crops import SIDE, Objects
from attnpool_backbones.engine.batch_source import with_replacements
from attnpool_backbones.experiments import crop_pretraining
from attnpool_backbones.launching.config import load_config
from attnpool_backbones.launching.latest_checkpoint import find_resumable_checkpoint
from attnpool_backbones.launching.launch import build_runner
from attnpool_backbones.machine import peak_memory
from attnpool_backbones.zoo.complexity import count_macs, count_parameters

DATA_ROOT = Path('data/digit_scenes')
FRACTIONS = ('coco/',)
"""Evaluators' keys whose values are shares of 1; everything else is in percent."""
TAG_METRICS = {
    'tags/mAP': 'tag mAP',
    'localisation/pointing': 'pointing',
    'localisation/mask_IoU': 'mask IoU',
}
"""Key of the evaluator -> label, of what an image-level head is measured by."""
CHANCE = {'localisation/pointing_chance': 'pointing by chance'}
SECONDS_BETWEEN_LINES = 10


@dataclass
class Result:
    """One row of a table."""

    name: str
    model: str
    metrics: dict[str, float]
    """Label -> percent."""
    parameters: int
    macs: int
    """Of one 192x192 scene, heads included."""
    minutes: float
    """Of training and evaluation, since the last start if the run was interrupted."""
    memory: float
    """Largest resident memory of the process so far in MiB."""
    command: str
    """What evaluates this checkpoint again."""
    notes: dict[str, float] = field(default_factory=dict)


def make_data(tell: Callable[[str], None]) -> None:
    """Generates the digit scenes, or verifies those that are there."""
    progress = every_few_seconds(lambda done, total: tell(f'data: {done}/{total} scenes'))
    try:
        summary = digit_scenes.generate(DATA_ROOT, progress=progress)
    except (OSError, ValueError) as error:
        tool = 'python tools/dataset_converters/make_digit_scenes.py'
        raise UserError(f'{error}\n(--force is a flag of {tool})') from error
    state = 'verified' if summary['reused'] else 'made'
    tell(f'data: {DATA_ROOT} {state}, {summary["train"]} training and {summary["val"]} val scenes')


def checkpoint_digest(folder: Path) -> str:
    """Returns the sha256 of the checkpoint that a training has come to.

    Args:
        folder: Of its checkpoints.

    Raises:
        UserError: There is none.
    """
    checkpoint = find_resumable_checkpoint(str(folder))
    if checkpoint is None:
        raise UserError(f'{folder}: no checkpoint in it, although results of it are kept beside it')
    return hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest()


def every_few_seconds(report: Callable[..., None]) -> Callable[..., None]:
    """Returns a progress callback (done, total, ...) that calls ``report`` now and then."""
    last = time.monotonic()

    def progress(done: int, total: int, *more: float) -> None:
        nonlocal last
        if time.monotonic() - last > SECONDS_BETWEEN_LINES or done == total:
            last = time.monotonic()
            report(done, total, *more)

    return progress


def scene_file(kind: str, index: int) -> Path:
    """Returns the file of a validation scene; ``kind`` is ``images`` or ``annotations``."""
    return DATA_ROOT / kind / 'validation' / f'{index:06d}.png'


def pretrain_backbone(
    config: str | dict, folder: Path, tell: Callable[[str], None], steps: int = 300
) -> Result:
    """Teaches a backbone to tell the digits apart, unless that is done.

    Args:
        config: Of a detector, below ``configs``, or that of the backbone itself.
        folder: Gets ``backbone.pth``; see :func:`crop_pretraining.save_backbone`.
        tell: Called with lines of progress.
        steps: Of training.

    Returns:
        The row, with the accuracy on the validation scenes' digits.
    """
    stored, checkpoint = folder / 'result.json', folder / 'backbone.pth'
    if stored.exists() and checkpoint.exists():
        tell(f'pretraining: done before ({folder})')
        return Result(**json.loads(stored.read_text()))

    started = time.monotonic()
    set_random_seed(0)
    if isinstance(config, dict):
        cfg = Config(dict(default_scope='mmdet', model=dict(backbone=config)))
    else:
        cfg = Config.fromfile(config_root() / config)
    backbone = build_backbone(cfg)
    train, val = (
        Objects.load(
            DATA_ROOT / 'annotations' / f'instances_{split}.json', DATA_ROOT / 'images' / images
        )
        for split, images in (('train', 'training'), ('val', 'validation'))
    )
    report = every_few_seconds(
        lambda step, steps, loss: tell(f'pretraining: step {step}/{steps}, loss {loss:.2f}')
    )
    model = crop_pretraining.pretrain(backbone, train, steps, progress=report)
    hits = crop_pretraining.accuracy(model, val)
    image = torch.zeros(1, 3, SIDE, SIDE)
    result = Result(
        name='pretraining',
        model=f'{type(backbone).__name__}-nano, average pooling',
        metrics={'accuracy on crops': 100 * hits},
        parameters=count_parameters(model),
        macs=count_macs(lambda: model(image)),
        minutes=(time.monotonic() - started) / 60,
        memory=peak_memory() / 2**20,
        command='attnpool quickstart',
    )
    crop_pretraining.save_backbone(model, checkpoint)
    write_atomically(json.dumps(asdict(result), indent=2).encode(), stored)
    return result


def build_backbone(cfg: Config) -> torch.nn.Module:
    """Builds and initialises the backbone of a detector's or segmentor's config."""
    from mmengine.registry import MODELS

    # Without a logger of its own mmengine tells on the screen how each parameter was initialised.
    MMLogger.get_instance('pretraining', log_level='WARNING')
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        backbone = MODELS.build(cfg.model.backbone)
        backbone.init_weights()
    return backbone


def train_and_evaluate(
    name: str,
    config: str,
    labels: dict[str, str],
    folder: Path,
    start: str,
    tell: Callable[[str], None],
    image_head: dict | None = None,
) -> tuple[Result, Runner]:
    """Trains a detector or segmentor to the end, or goes on with it, and evaluates it once.

    Args:
        name: For the row and lines of progress.
        config: Below ``configs``.
        labels: Key of the evaluator -> label of the table.
        folder: For checkpoints and logs.
        start: Checkpoint with the backbone's first weights.
        tell: Called with lines of progress.
        image_head: Arguments of an image-level head. Default: None, there is none.

    Returns:
        The row and the Runner with the trained model in eval mode.
    """
    open_door()  # for backbones that read a detector's checkpoint themselves
    cfg = load_config(str(config_root() / config), work_dir=str(folder))
    if image_head is not None:
        add_image_head(cfg, image_head)
    cfg.log_level = 'WARNING'
    cfg.custom_hooks.append(dict(type='attnpool_backbones.ProgressHook', name=name))
    cfg.default_hooks.pop('visualization')
    for hook in (cfg.default_hooks.checkpoint, *cfg.custom_hooks):
        if type_name(hook) in ('SafeCheckpointHook', 'WorkFolderHook'):
            hook.resume_flags = False  # these trainings go on by themselves
    cfg.randomness = dict(seed=0)
    # The evaluation is a step of its own here; by its interval alone the end would have one, too.
    cfg.train_cfg.val_begin = 10**9
    cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=start, prefix='backbone.')
    checkpoint = find_resumable_checkpoint(str(folder))
    cfg.resume, cfg.load_from = checkpoint is not None, checkpoint

    started = time.monotonic()
    runner = build_runner(cfg)
    runner.train()
    model = runner.model.eval()
    stored = folder / 'result.json'
    final = Path(find_resumable_checkpoint(str(folder)))
    if stored.exists():
        result = Result(**json.loads(stored.read_text()))
        if Path(shlex.split(result.command)[-1]).name == final.name:
            tell(f'{name}: trained and evaluated before ({folder})')
            return result, runner

    runner.val_loop.dataloader = with_replacements(runner.val_loop.dataloader)
    measured = runner.val()
    minutes = (time.monotonic() - started) / 60
    sample = next(iter(runner.val_dataloader))
    one = {key: values[:1] for key, values in sample.items()}
    result = Result(
        name=name,
        model=f'{type(model).__name__} {type(model.backbone).__name__}-nano',
        metrics=labelled(measured, labels),
        parameters=count_parameters(model),
        macs=count_macs(lambda: model.val_step(one)),
        minutes=minutes,
        memory=peak_memory() / 2**20,
        # with all that was changed here
        command=shlex.join(
            ('attnpool', 'test', str(folder / Path(config).name), str(folder / final.name))
        ),
        notes=labelled(measured, CHANCE),
    )
    write_atomically(json.dumps(asdict(result), indent=2).encode(), stored)
    return result, runner


def labelled(measured: dict[str, float], labels: dict[str, str]) -> dict[str, float]:
    """Returns the metrics that have a label, by it, in percent.

    Args:
        measured: Of the evaluator.
        labels: Key of the evaluator -> label of the table.
    """
    return {
        label: float(measured[key]) * (100 if key.startswith(FRACTIONS) else 1)
        for key, label in labels.items()
        if key in measured
    }


def add_image_head(cfg: Config, image_head: dict) -> None:
    """Gives a detector or segmentor an image-level head, and its evaluation what measures that.

    Args:
        cfg: The whole config, changed in place.
        image_head: Arguments of the head.
    """
    cfg.model.update(
        type='attnpool_backbones.WithImageHead', base=cfg.model.type, image_head=image_head
    )
    # Attention on top of a trunk that trains fast is unstable at the trunk's rate.
    cfg.optim_wrapper.paramwise_cfg.custom_keys = dict(image_head=dict(lr_mult=0.5))
    measures = [
        dict(type=f'attnpool_backbones.{name}') for name in ('ImageTagMetric', 'LocalisationMetric')
    ]
    cfg.val_evaluator = cfg.test_evaluator = [cfg.val_evaluator, *measures]
