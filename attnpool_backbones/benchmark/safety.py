"""What the checks of this package cost: iterations of a training, and the loading of a checkpoint.

A case's model is ``safety.training`` (of a nano Mask R-CNN on digit scenes of the case's size) or
``safety.loading`` (of a file of as many MiB as the size's first number), its form ``'ours'`` or
``'plain'``: mmengine's own loops and hooks, ``torch.load``.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from attnpool_backbones.benchmark.cases import Case
from attnpool_backbones.checkpoints.door import load_from_checked_file
from attnpool_backbones.command_line import UserError
from attnpool_backbones.config_files import config_root

__all__ = ['SafetyWorkload', 'is_safety']

PREFIX = 'safety.'
CONFIG = 'patchconvnet/mask-rcnn_patchconvnet-nano_slim-fpn_digit-scenes.py'
SCENES = 32
MIB = 2**20


class SafetyWorkload:
    """A case of this module, ready to run; like :class:`.models.Workload`.

    Args:
        case: What to run.
        device: ``'cpu'`` or ``'cuda'``.

    Raises:
        UserError: The model is none of this module.
    """

    def __init__(self, case: Case, device: str):
        makers = {f'{PREFIX}training': training, f'{PREFIX}loading': loading}
        if case.model not in makers:
            raise UserError(f"unknown model '{case.model}', choose from {sorted(makers)}")
        self.case = case
        self.folder = tempfile.TemporaryDirectory()
        self.steps = makers[case.model](case, Path(self.folder.name), device)

    def clear(self) -> None:
        """Has nothing to forget."""

    def run(self) -> None:
        """Does one iteration, or loads the file once."""
        next(self.steps)

    forward = run


def is_safety(model: str) -> bool:
    """Tells whether a case's model is one of this module."""
    return model.startswith(PREFIX)


def loading(case: Case, folder: Path, device: str) -> Iterator[None]:
    """Loads a checkpoint again and again; its layers are those of a large backbone."""
    path = str(folder / 'x.pth')
    values = 512 * 512
    weights = {
        f'backbone.blocks.{index}.weight': torch.randn(512, 512)
        for index in range(max(case.size[0] * MIB // (4 * values), 1))
    }
    weights |= {f'backbone.norms.{index}.bias': torch.randn(512) for index in range(200)}
    torch.save(dict(state_dict=weights, meta=dict(epoch=1, iter=100)), path)
    del weights
    while True:
        if case.form == 'ours':
            load_from_checked_file(path, device)
        else:
            torch.load(path, map_location=device, weights_only=True)
        yield


def training(case: Case, folder: Path, device: str) -> Iterator[None]:
    """Does the iterations of a training one by one, loading of images included."""
    from attnpool_backbones.datasets.digit_scenes import generate

    generate(folder / 'scenes', train=SCENES, val=1, size=case.size[::-1], seed=0)
    runner = started_runner(training_config(case, folder))
    loop = runner.train_loop
    number = 0
    while True:
        for batch in loop.batches(0, 0) if case.form == 'ours' else loop.dataloader:
            loop.run_iter(number, batch)
            number += 1
            yield


def training_config(case: Case, folder: Path) -> Config:
    """Returns the config of a training, with all that the command line adds, or nothing of it."""
    from attnpool_backbones.launching.launch import plan_training
    from attnpool_backbones.launching.options import add_common_arguments
    from attnpool_backbones.launching.training_options import add_training_arguments

    parser = argparse.ArgumentParser()
    parser.add_argument('config')
    add_common_arguments(parser)
    add_training_arguments(parser)
    args = parser.parse_args([str(config_root() / CONFIG), '--work-dir', str(folder / 'run')])
    args.batch, args.workers, args.seed = case.batch, 0, 0
    args.cfg_options = {'train_dataloader.dataset.data_root': str(folder / 'scenes')}
    cfg = plan_training(args).cfg
    cfg.experiment_name = f'{case.form}_{folder.name}'
    cfg.log_level = 'WARNING'
    cfg.load_from = None
    # both forms keep the same weights, and so find as many objects
    cfg.optim_wrapper.optimizer.lr = 0.0
    # a validation has a batch source too, but is no part of an iteration
    for split in ('val', 'test'):
        for part in ('dataloader', 'cfg', 'evaluator'):
            cfg[f'{split}_{part}'] = None
    if case.form == 'plain':
        cfg.train_cfg.type = 'EpochBasedTrainLoop'
        cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=1)
        cfg.custom_hooks = []
    return cfg


def started_runner(cfg: Config) -> Runner:
    """Returns a runner that stands before its first iteration, as in :meth:`Runner.train`."""
    from attnpool_backbones.launching.launch import build_runner

    runner: Any = build_runner(cfg)
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)
    runner.call_hook('before_run')
    runner.optim_wrapper.initialize_count_status(runner.model, 0, runner.train_loop.max_iters)
    runner.call_hook('before_train')
    runner.call_hook('before_train_epoch')
    runner.model.train()
    return runner
