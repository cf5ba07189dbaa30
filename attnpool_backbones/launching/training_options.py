"""The flags of a training that most people ask for, on top of a config."""

import argparse
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from attnpool_backbones.command_line import (
    MAX_PROCESSES,
    UserError,
    given_name,
    number_above_zero,
    whole_number,
)
from attnpool_backbones.config_tasks import recognise_task
from attnpool_backbones.config_types import type_name
from attnpool_backbones.launching.safeguards import average_hooks

__all__ = ['add_training_arguments', 'apply_training_options', 'best_metric', 'set_hook']

MAX_STAGES = 99
METRICS = {'mmdet': 'coco/bbox_mAP', 'mmseg': 'mIoU', 'mmengine': 'accuracy/top1'}
"""By which the best checkpoint is chosen, and the training stopped."""
BACKENDS = dict(
    tensorboard=('TensorboardVisBackend', 'tensorboard'),
    wandb=('WandbVisBackend', 'wandb'),
    mlflow=('MLflowVisBackend', 'mlflow'),
)
"""Flag -> type of mmengine's backend, and the module it needs."""


def add_training_arguments(parser: argparse.ArgumentParser, with_auto: bool = False) -> None:
    """Adds the flags of ``tools/train.py`` and ``attnpool train``, besides the common ones.

    Args:
        parser: Extended in-place.
        with_auto: Whether ``--batch auto`` can be said; who parses it puts a number in its place.
    """
    add = parser.add_argument
    number = whole_number(1)
    add('--amp', action='store_true', help='mixed precision: float16 on CUDA, bfloat16 on the CPU')
    add(
        '--resume',
        type=given_name,
        nargs='?',
        const='auto',
        metavar='auto|PATH',
        help='go on from a checkpoint; auto (the default without a value) takes the latest whole '
        'one in the work folder, or starts if there is none',
    )
    add(
        '--checkpoint-every',
        metavar='TIME',
        help='save the state by time too, as 10m or 2h, also in the middle of an epoch; only the '
        'last of these checkpoints is kept',
    )
    add(
        '--wait-for-space',
        action='store_true',
        help='wait while the disk is full or the work folder is gone, instead of ending',
    )
    add('--seed', type=int, help='seed of all randomness (default: a random one)')
    add(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by the batch size over that of the recipe',
    )
    add('--epochs', type=whole_number(1), help='passes over the data; milestones move along')
    add(
        '--batch',
        type=(lambda text: text if text == 'auto' else number(text)) if with_auto else number,
        metavar='N|auto' if with_auto else 'N',
        help='images of a step, over all of --devices; auto: as many as fit and are worth it'
        if with_auto
        else 'images of a step of each process',
    )
    add('--lr', type=number_above_zero, help='learning rate of the optimizer')
    add(
        '--freeze',
        type=whole_number(-1, MAX_STAGES),
        metavar='STAGES',
        help='stages of the backbone that are not trained: -1 none, 0 the stem, 1 the first, ...',
    )
    add(
        '--ema',
        action='store_true',
        help="evaluate and save a moving average of the weights: the config's own, if it has one",
    )
    add(
        '--patience',
        type=whole_number(1),
        metavar='N',
        help='stop when N validations in a row have not been better',
    )
    add(
        '--save-best',
        nargs='?',
        const='auto',
        metavar='METRIC',
        help='keep the best checkpoint too, by bbox mAP, mIoU or METRIC',
    )
    add(
        '--workers',
        type=whole_number(0, MAX_PROCESSES),
        metavar='N',
        help='processes that load images, 0: none',
    )
    add(
        '--keep-memory',
        action='store_true',
        help='on a CPU, keep freed memory in the process: fewer page faults, but it stays as '
        'large as its largest step (glibc)',
    )
    for flag in BACKENDS:
        add(f'--{flag}', action='store_true', help=f'write curves and pictures for {flag} too')


def best_metric(cfg: Config, said: str | None = None) -> str:
    """Names the metric that tells which checkpoint is best, as the evaluator reports it."""
    if said not in (None, 'auto'):
        return said
    return METRICS[recognise_task(cfg)]


def apply_training_options(cfg: Config, args: argparse.Namespace) -> None:
    """Changes a config as flags say.

    Args:
        cfg: The whole config, changed in-place.
        args: Parsed flags; those of :func:`add_training_arguments` may be absent.

    Raises:
        UserError: If a flag does not fit the config.
    """
    if _said(args, 'epochs'):
        set_epochs(cfg, args.epochs)
    if _said(args, 'batch'):
        cfg.train_dataloader.batch_size = args.batch
    if _said(args, 'lr'):
        cfg.optim_wrapper.optimizer.lr = args.lr
    if _said(args, 'freeze'):
        cfg.model.backbone.frozen_stages = args.freeze
    if _said(args, 'workers'):
        set_workers(cfg, args.workers)
    if _said(args, 'ema') and not average_hooks(cfg):
        # the average follows quickly at first, so that short trainings have one too
        set_hook(cfg, dict(type='EMAHook', ema_type='MomentumAnnealingEMA', momentum=0.001))
    if _said(args, 'save_best') or _said(args, 'patience'):
        metric = best_metric(cfg, getattr(args, 'save_best', None))
        cfg.default_hooks.checkpoint.save_best = metric
        cfg.default_hooks.checkpoint.rule = 'greater'
        if _said(args, 'patience'):
            # mmengine's 0.1 is a lot of a mAP of 0 to 1; with 0 an equal score is a better one
            stopping = dict(monitor=metric, rule='greater', min_delta=1e-6, patience=args.patience)
            hook = dict(type='EarlyStoppingHook', **stopping)
            set_hook(cfg, hook, 'ResumableEarlyStoppingHook')
    if _said(args, 'keep_memory'):
        set_hook(cfg, dict(type='attnpool_backbones.KeepMemoryHook'))
    for flag, (backend, module) in BACKENDS.items():
        if _said(args, flag):
            if find_spec(module) is None:
                raise UserError(f'--{flag}: {module} is not installed (pip install {module})')
            add_backend(cfg, backend, **(_mlflow_settings(cfg) if flag == 'mlflow' else {}))


def _said(args: argparse.Namespace, name: str) -> bool:
    value = getattr(args, name, None)
    return value is not None and value is not False


def set_hook(cfg: Config, hook: dict[str, Any], *others: str) -> None:
    """Adds a custom hook, and takes those out that do the same.

    Args:
        cfg: The whole config, changed in-place.
        hook: The entry of the hook; it takes the place of others of its type.
        *others: Names of more types that it takes the place of.
    """
    replaced = {type_name(hook), *others}
    kept = [each for each in cfg.get('custom_hooks') or [] if type_name(each) not in replaced]
    cfg.custom_hooks = [*kept, hook]


def set_epochs(cfg: Config, epochs: int) -> None:
    """Makes a training longer or shorter; its schedule keeps its shape.

    Args:
        cfg: The whole config, changed in-place.
        epochs: How many.

    Raises:
        UserError: If the config counts iterations.
    """
    before = cfg.train_cfg.get('max_epochs')
    if before is None:
        iterations = cfg.train_cfg.get('max_iters')
        raise UserError(
            f'--epochs {epochs}: {cfg.filename} counts iterations ({iterations}); use '
            f'--cfg-options train_cfg.max_iters=N'
        )

    def scaled(epoch: int) -> int:
        return max(1, round(epoch * epochs / before)) if epoch > 0 else epoch

    loop = cfg.train_cfg
    loop.max_epochs = epochs
    loop.val_interval = min(loop.get('val_interval', 1), epochs)
    if 'val_begin' in loop:
        loop.val_begin = scaled(loop.val_begin)
    if loop.get('dynamic_intervals'):
        loop.dynamic_intervals = [(scaled(epoch), every) for epoch, every in loop.dynamic_intervals]
    schedulers = cfg.get('param_scheduler') or []
    for scheduler in [schedulers] if isinstance(schedulers, Mapping) else schedulers:
        if not scheduler.get('by_epoch', True):
            continue
        begin, end = scheduler.get('begin', 0), scheduler.get('end')
        is_one_descent = end is not None and scheduler.get('T_max') == end - begin
        for key in ('begin', 'end', 'T_max', 'step_size', 'total_steps'):
            if scheduler.get(key) is not None:
                scheduler[key] = scaled(scheduler[key])
        for key in ('milestones', 'periods'):
            if key in scheduler:
                scheduler[key] = [scaled(epoch) for epoch in scheduler[key]]
        if end is not None:
            scheduler.end = max(scheduler.get('begin', 0) + 1, scheduler.end)
            if is_one_descent:
                scheduler.T_max = scheduler.end - scheduler.get('begin', 0)


def set_workers(cfg: Config, workers: int) -> None:
    """Sets the processes that load images for every split.

    Args:
        cfg: The whole config, changed in-place.
        workers: How many; 0: the process that trains.
    """
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        if loader is not None:
            loader.num_workers = workers
            loader.persistent_workers = workers > 0 and bool(loader.get('persistent_workers'))


def add_backend(cfg: Config, backend: str, **settings: Any) -> None:
    """Adds a place that curves and pictures go to.

    Args:
        cfg: The whole config, changed in-place.
        backend: Type of a backend of mmengine's visualizer.
        **settings: Its arguments.
    """
    visualizer = cfg.setdefault('visualizer', ConfigDict(type='Visualizer'))
    backends = list(visualizer.get('vis_backends') or [])
    if not any(entry['type'] == backend for entry in backends):
        visualizer.vis_backends = [*backends, dict(type=backend, **settings)]


def _mlflow_settings(cfg: Config) -> dict[str, str]:
    """A data base beside the runs, which ``mlflow ui`` compares, unless a server is named.

    mmengine's own default, plain files, is refused by MLflow from version 3.7 on.
    """
    run = Path(cfg.get('work_dir') or 'work_dirs/run').absolute()
    settings = dict(run_name=run.name, exp_name='attnpool_backbones')
    uri = os.environ.get('MLFLOW_TRACKING_URI')
    if uri:
        return dict(settings, tracking_uri=uri)
    return dict(
        settings,
        tracking_uri=f'sqlite:///{run.parent / "mlflow.db"}',
        artifact_location=(run.parent / 'mlflow').as_uri(),
    )
