"""Trains a detector or a segmentor on a folder of your own, or as a config says.

    attnpool train photos --backbone caformer_s18 --head mask-rcnn
    attnpool train work_dirs/photos_mask-rcnn_caformer-s18.py --resume

A folder's labels (COCO, YOLO, Pascal VOC, labelme, VIA, CVAT, masks) are recognised, checked and
split, a short config is written for them, what the training will take is measured and told, and
then it starts. Everything that is wrong with images and labels is listed before.
"""

import argparse
import os
import re
import shlex
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from attnpool_backbones.cli.own_data_arguments import (
    add_own_data_arguments,
    add_plan_arguments,
    choose_model,
    prepare_with_progress,
    request_of,
    require_no_folder_flags,
)
from attnpool_backbones.command_line import (
    MAX_PROCESSES,
    UserError,
    given_name,
    is_config,
    whole_number,
)
from attnpool_backbones.duration import duration_words, seconds_of

__all__ = ['AFTER_INTERRUPT', 'add_arguments', 'run']

AFTER_INTERRUPT = 'the same command with --resume goes on from the last checkpoint'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``attnpool train``."""
    from attnpool_backbones.launching.options import add_common_arguments
    from attnpool_backbones.launching.training_options import add_training_arguments

    parser.add_argument(
        'source', type=given_name, metavar='FOLDER|CONFIG', help='own data, or a config file'
    )
    add_common_arguments(parser)
    add_training_arguments(parser, with_auto=True)
    parser.add_argument(
        '--time',
        type=duration,
        metavar='TIME',
        help='as many epochs as fit into e.g. 90s, 30m, 1.5h, 2d',
    )
    parser.add_argument(
        '--devices',
        metavar='N|cpu|0,1',
        help='how many devices (processes without CUDA), or which ones; batch is over all of them',
    )
    parser.add_argument(
        '--no-forecast',
        action='store_true',
        help='start at once, without measuring what the training will take',
    )
    add_own_data_arguments(parser)
    add_plan_arguments(parser)


def duration(text: str) -> float:
    """Parses a time for argparse."""
    try:
        return seconds_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(error) from error


def run(args: argparse.Namespace) -> int | None:
    """Carries out ``attnpool train``."""
    processes = choose_devices(args.devices)
    args.config = args.source
    if is_config(args.source):
        require_no_folder_flags(args)
        prepare_config(args, processes)
    else:
        if args.auto_scale_lr:
            raise UserError(
                '--auto-scale-lr: for a config; the learning rate for a folder is chosen for its '
                'batch already'
            )
        prepare_folder(args)
    if args.patience is not None and args.launcher == 'none':
        tell_patience(args)
    if processes > 1:
        return train_in_processes(args, processes)
    from attnpool_backbones.launching.forecast import GIB, memory_used
    from attnpool_backbones.launching.launch import train

    started = time.monotonic()
    run_folder = train(args)
    if os.environ.get('RANK', '0') != '0':
        return None
    took = duration_words(time.monotonic() - started)
    print(f'took {took}, at most {memory_used() / GIB:.2f} GiB')
    tell_result(Path(run_folder))
    return None


def choose_devices(said: str | None) -> int:
    """Hides the devices that are not to be used, before torch looks for them.

    Returns:
        Number of processes.
    """
    if said is None:
        return 1
    if said == 'cpu':
        os.environ['CUDA_VISIBLE_DEVICES'] = ''
        return 1
    if re.fullmatch(r'\d+(,\d+)+', said):
        os.environ['CUDA_VISIBLE_DEVICES'] = said
        return len(said.split(','))
    try:
        count = whole_number(1, MAX_PROCESSES)(said)
    except argparse.ArgumentTypeError as error:
        raise UserError(
            f'--devices: a number of devices, cpu, or which ones, as in 0,1; {error}'
        ) from error
    import torch

    there = torch.cuda.device_count()
    if there and count > there:
        raise UserError(f'--devices {said}: this machine has {there}')
    return count


def prepare_config(args: argparse.Namespace, processes: int = 1) -> None:
    """Resolves what has to be measured on a config."""
    if args.batch != 'auto' and args.time is None:
        return
    from attnpool_backbones.launching import forecast
    from attnpool_backbones.launching.launch import plan_training

    if args.batch == 'auto':
        args.batch = None
        plan = plan_training(args)
        begun = begun_with(plan.cfg, 'train_dataloader', 'batch_size')
        if begun is not None:
            args.batch = begun * processes
            print(f'batch: {args.batch}, with which the training began')
        else:
            args.batch = forecast.largest_batch(plan.cfg, count_images(plan.cfg), print)
            print(f'batch: {args.batch}')
    if args.time is not None:
        cfg = plan_training(args).cfg
        args.epochs = begun_with(cfg, 'train_cfg', 'max_epochs')
        if args.epochs is not None:
            print(f'epochs: {args.epochs}, with which the training began')
            return
        interval = cfg.train_cfg.get('val_interval', 1)
        cost = measured(cfg)
        cost = fit_epochs(args, cost, lambda epochs: min(interval, epochs))
        print(f'epochs: {args.epochs} in {duration_words(cost.seconds)}')


def begun_with(cfg: Any, part: str, key: str) -> Any:
    """Returns a setting of the training that is gone on with; None if none is, or it has none.

    Trainings may count iterations, for instance. A run that saved no checkpoint, as its batch was
    too large, is begun anew.
    """
    from mmengine.config import Config

    if not cfg.get('resume'):
        return None
    written = Path(cfg.work_dir, Path(cfg.filename).name)
    return Config.fromfile(written)[part].get(key) if written.is_file() else None


def measured(cfg: Any) -> Any:
    """Measures what a training takes, and says so: it may last a minute."""
    from attnpool_backbones.launching import forecast

    print('measuring a few steps ...', flush=True)
    return forecast.forecast(cfg)


def fit_epochs(args: argparse.Namespace, cost: Any, interval: Callable[[int], int]) -> Any:
    """Chooses the epochs that fit into ``--time``.

    Args:
        args: Gets the number.
        cost: What was measured.
        interval: Epochs between validations, by the number of epochs.

    Returns:
        What so many epochs take.
    """
    from attnpool_backbones.launching.forecast import count_validations, epochs_within

    args.epochs = epochs_within(args.time, cost, interval)
    validations = count_validations(args.epochs, interval(args.epochs))
    cost = replace(cost, epochs=args.epochs, validations=validations)
    if cost.seconds > args.time:
        print(
            f'--time {duration_words(args.time)}: one epoch alone takes about '
            f'{duration_words(cost.seconds)}; a smaller --size or --backbone is faster'
        )
    return cost


def count_images(cfg: Any) -> int:
    """Counts the images that a config trains on."""
    from mmengine.registry import DATASETS, DefaultScope

    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return len(DATASETS.build(cfg.train_dataloader.dataset))


def prepare_folder(args: argparse.Namespace) -> None:
    """Makes a config for a folder, and tells what the training will take."""
    from attnpool_backbones.launching import forecast
    from attnpool_backbones.launching.launch import plan_training
    from attnpool_backbones.own_data.bases import choose_bases
    from attnpool_backbones.own_data.planning import choose_val_interval
    from attnpool_backbones.own_data.preparing import plan_again
    from attnpool_backbones.own_data.request import places_of, require_same_folder

    if args.launcher != 'none':
        # each process would read, split and write the labels, and measure
        raise UserError(
            f'--launcher {args.launcher}: is for configs; take --devices N for {args.source}, or '
            f'train the config that attnpool config {shlex.quote(args.source)} writes'
        )
    read = choose_model(args)
    if args.resume:
        request = request_of(args, batch=None)
        run_folder, config = places_of(request, choose_bases(args.backbone, args.head))
        if config.is_file():
            require_same_folder(config, args.source)
            # a run goes on with the config it was started with, the owner's changes in it
            args.config, args.work_dir, args.batch = str(config), str(run_folder), None
            return
    is_auto = args.batch == 'auto'
    request = request_of(args, batch=None if is_auto else args.batch)
    prepared = prepare_with_progress(request, read=read)
    args.config, args.work_dir = str(prepared.config), prepared.cfg.work_dir
    args.batch = None
    if is_auto:
        batch = forecast.largest_batch(plan_training(args).cfg, prepared.data.train, print)
        prepared = plan_again(prepared, request_of(args, batch=batch))
    cost = None
    if not args.no_forecast or args.time is not None:
        cost = measured(plan_training(args).cfg)
    if args.time is not None:
        cost = fit_epochs(args, cost, choose_val_interval)
        prepared = plan_again(prepared, request_of(args, batch=prepared.plan.batch))
    tell_plan(prepared, cost)


def tell_patience(args: argparse.Namespace) -> None:
    """Says so if the training has too few validations for ``--patience`` to end it early."""
    from attnpool_backbones.launching.forecast import count_validations
    from attnpool_backbones.launching.launch import plan_training

    loop = plan_training(args).cfg.train_cfg
    epochs, interval = loop.get('max_epochs'), loop.get('val_interval', 1)
    if epochs is None or loop.get('dynamic_intervals'):
        return
    validations = count_validations(epochs, interval, loop.get('val_begin', 1))
    # the first one is always the best so far
    if args.patience + 1 >= validations:
        print(
            f'--patience {args.patience} will not end this training early: it has '
            f'{counted(validations, "validation")} in {counted(epochs, "epoch")}; take a smaller '
            'one, or --cfg-options train_cfg.val_interval=1'
        )


def tell_plan(prepared: Any, cost: Any) -> None:
    """Says what was chosen, and what it will take."""
    from attnpool_backbones.launching.forecast import GIB
    from attnpool_backbones.zoo.config_sizes import measure_model

    plan = prepared.plan
    height, width = plan.crop or (plan.size, plan.size)
    size = measure_model(prepared.cfg, height, width)
    frozen = 'nothing' if plan.frozen < 0 else f'the backbone up to stage {plan.frozen}'
    lines = [
        f'config: {prepared.config}',
        f'model: {prepared.bases.head} on {prepared.bases.backbone}, '
        f'{size.parameters / 1e6:.1f} M parameters, {size.macs / 1e9:.1f} G multiply-adds at '
        f'{width}x{height}',
        f'training: {counted(plan.epochs, "epoch")} of {prepared.data.train} images, '
        f'batch {plan.batch}, learning rate {plan.lr:g}, images fitted into {plan.size} pixels, '
        f'frozen: {frozen}, weights: {plan.weights or "none"}',
    ]
    if cost is not None:
        lines.append(
            f'it will take about {duration_words(cost.seconds)} ({cost.step:.2f} s a step, '
            f'{counted(cost.steps, "step")} an epoch, '
            f'{counted(cost.validations, "validation")} of {duration_words(cost.validation)}, '
            f'{duration_words(cost.start)} to start) and {cost.memory / GIB:.2f} GiB'
        )
    print('\n'.join(lines), flush=True)


def counted(number: int, thing: str) -> str:
    """Counts things: ``'1 epoch'``, ``'2 epochs'``."""
    return f'{number} {thing}' + ('' if number == 1 else 's')


def train_in_processes(args: argparse.Namespace, processes: int) -> int:
    """Trains in several processes of this machine; returns their exit code."""
    from attnpool_backbones.launching.config import load_config
    from attnpool_backbones.launching.processes import run_group

    batch = args.batch
    if not batch:
        loader = load_config(args.config, args.cfg_options).train_dataloader
        batch = loader.get('batch_size', 1)
    if batch % processes:
        raise UserError(f'--devices: a batch of {batch} cannot be shared by {processes} devices')
    words = ['--batch', str(batch // processes), '--launcher', 'pytorch']
    for name in ('work_dir', 'epochs', 'lr', 'freeze', 'patience', 'save_best', 'seed', 'workers',
                 'resume', 'checkpoint_every', 'max_bad'):  # fmt: skip
        value = getattr(args, name)
        if value is not None:
            words += [f'--{name.replace("_", "-")}', str(value)]
    for name in ('amp', 'compile', 'ema', 'auto_scale_lr', 'wait_for_space', 'keep_memory',
                 'tensorboard', 'wandb', 'mlflow'):  # fmt: skip
        if getattr(args, name):
            words.append(f'--{name.replace("_", "-")}')
    if args.cfg_options:
        words += ['--cfg-options', *(f'{key}={value}' for key, value in args.cfg_options.items())]
    command = ['-m', 'attnpool_backbones', 'train', args.config, *words]
    return run_group(command, processes)


def tell_result(run_folder: Path) -> None:
    """Says where the model is and what can be done with it."""
    from attnpool_backbones.launching.latest_checkpoint import newest_best

    best = newest_best(run_folder)
    if best:
        print(f'best checkpoint: {best}')
    run = shlex.quote(str(run_folder))
    print(f'see how it learnt: attnpool figure training {run}')
    print(f'see what it gets wrong: attnpool test {run} --report report')
    print(f'use it with: attnpool predict {run} IMAGES')
