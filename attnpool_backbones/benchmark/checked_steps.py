"""Iterations of a training, and loads of a checkpoint, with all checks of this package or none.

None are mmengine's own loop and hooks, ``torch.load`` or safetensors' own reader.
"""

import argparse
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from safetensors.torch import load_file

from attnpool_backbones.checkpoints.door import load_from_checked_file
from attnpool_backbones.checkpoints.safetensors_files import safetensors_bytes
from attnpool_backbones.config_files import config_root

__all__ = ['iterations', 'loads', 'same_numbers', 'write_checkpoint']

CONFIG = 'patchconvnet/mask-rcnn_patchconvnet-nano_slim-fpn_digit-scenes.py'
SCENES = 32
SEED = 0
MIB = 2**20


def write_checkpoint(folder: Path, mebibytes: int, as_safetensors: bool = False) -> Path:
    """Writes a checkpoint whose layers are those of a large backbone.

    Args:
        folder: Where.
        mebibytes: Of its large weights together.
        as_safetensors: Whether it is one of safetensors, with our checksum. Default: what
            ``torch.save`` writes.
    """
    values = 512 * 512
    weights = {
        f'backbone.blocks.{index}.weight': torch.randn(512, 512)
        for index in range(max(mebibytes * MIB // (4 * values), 1))
    }
    weights |= {f'backbone.norms.{index}.bias': torch.randn(512) for index in range(200)}
    if as_safetensors:
        path = folder / 'x.safetensors'
        path.write_bytes(safetensors_bytes(weights, {}))
        return path
    path = folder / 'x.pth'
    torch.save(dict(state_dict=weights, meta=dict(epoch=1, iter=100)), path)
    return path


def loads(path: Path, checked: bool) -> Callable[[], Any]:
    """Returns what brings a checkpoint into memory.

    Args:
        path: File.
        checked: Whether through the door of this package.
    """
    if checked:
        return lambda: load_from_checked_file(str(path))
    if path.suffix == '.safetensors':
        # by itself it only maps the file and has read nothing
        return lambda: {name: value.clone() for name, value in load_file(path).items()}
    return lambda: torch.load(path, map_location='cpu', weights_only=True)


def iterations(folder: Path, checked: bool, side: int, batch: int) -> Callable[[], None]:
    """Returns what does the next iteration of a training, loading of images included.

    Args:
        folder: For images and run; the same name for both forms is no trouble.
        checked: Whether with all that the command line adds.
        side: Of the images, in pixels.
        batch: Images of an iteration.
    """
    from attnpool_backbones.datasets.digit_scenes import generate

    folder = folder / ('checked' if checked else 'plain')
    generate(folder / 'scenes', train=SCENES, val=1, size=(side, side), seed=0)
    loop = _started_runner(_training_config(folder, checked, batch)).train_loop
    # else every epoch begins with a number of the model's
    loop.dataloader.generator = torch.Generator()

    def steps() -> Iterator[None]:
        number = 0
        while True:
            for data_batch in loop.batches(0, 0) if checked else loop.dataloader:
                loop.run_iter(number, data_batch)
                number += 1
                yield

    return steps().__next__


def same_numbers() -> Callable[[], None]:
    """Returns what to call before each of two iterations in turns: both draw the same numbers.

    They sample the same boxes then, and so have the same to do.
    """
    from attnpool_backbones.engine.random_state_hook import MODEL, seed_generators

    calls = itertools.count()
    return lambda: seed_generators(MODEL, SEED, 0, next(calls) // 2)


def _training_config(folder: Path, checked: bool, batch: int) -> Config:
    from attnpool_backbones.launching.launch import plan_training
    from attnpool_backbones.launching.options import add_common_arguments
    from attnpool_backbones.launching.training_options import add_training_arguments

    parser = argparse.ArgumentParser()
    parser.add_argument('config')
    add_common_arguments(parser)
    add_training_arguments(parser)
    args = parser.parse_args([str(config_root() / CONFIG), '--work-dir', str(folder / 'run')])
    args.batch, args.workers, args.seed = batch, 0, SEED
    args.cfg_options = {'train_dataloader.dataset.data_root': str(folder / 'scenes')}
    cfg = plan_training(args).cfg
    cfg.experiment_name = f'{folder.parent.name}_{folder.name}'
    cfg.log_level = 'WARNING'
    cfg.load_from = None
    # both forms keep the same weights, and so find as many objects
    cfg.optim_wrapper.optimizer.lr = 0.0
    # a validation has a batch source too, but is no part of an iteration
    for split in ('val', 'test'):
        for part in ('dataloader', 'cfg', 'evaluator'):
            cfg[f'{split}_{part}'] = None
    if not checked:
        cfg.train_cfg.type = 'EpochBasedTrainLoop'
        cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=1)
        cfg.custom_hooks = []
    return cfg


def _started_runner(cfg: Config) -> Runner:
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
