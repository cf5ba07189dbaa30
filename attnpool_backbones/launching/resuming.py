"""``--resume``: which checkpoint a run goes on from, and the seed that goes with it."""

import os
from contextlib import nullcontext
from functools import cache

from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from attnpool_backbones.checkpoints.matching import Shapes, shapes_of
from attnpool_backbones.command_line import UserError
from attnpool_backbones.config_types import type_name
from attnpool_backbones.engine.work_folder_lock import claimed
from attnpool_backbones.launching.checkpoint_check import require_checkpoint
from attnpool_backbones.launching.devices import is_first_process
from attnpool_backbones.launching.latest_checkpoint import (
    examine,
    find_resumable_checkpoint,
    has_later,
    stored_seed,
)

__all__ = ['choose_checkpoint_to_resume', 'out_dir_of']


def choose_checkpoint_to_resume(cfg: Config, resume: str | None) -> None:
    """Resolves ``--resume auto`` or ``--resume PATH`` into ``load_from`` and the seed.

    Without a checkpoint in the work folder ``auto`` starts from the beginning, so that one command
    serves the first start and every restart.

    Args:
        cfg: The whole config, changed in-place.
        resume: ``'auto'``, a checkpoint's file or address, or None for what the config says.

    Raises:
        UserError: If the checkpoint is not there, or is none of a training.
        UnusableCheckpoints: If the work folder has checkpoints, but none to go on from, or cannot
            be looked into.
        WorkFolderInUse: If another process writes into the work folder.
    """
    if resume is None:
        if not cfg.get('resume'):
            return
        resume = cfg.get('load_from') or 'auto'
    checkpoint = find_latest(cfg) if resume == 'auto' else resume
    cfg.resume = checkpoint is not None
    if checkpoint is None:
        return
    went_back = False
    if resume != 'auto':
        require_checkpoint(checkpoint)
        found = examine(checkpoint)
        if found.fault:
            raise UserError(f'cannot resume from {checkpoint}: it {found.fault}')
        went_back = has_later(cfg.work_dir, out_dir_of(cfg), found)
    for hook in cfg.get('custom_hooks') or []:
        if type_name(hook) == 'WorkFolderHook':
            hook.went_back = went_back
    # mmengine restores the seed too late for the sampler, which is built before
    randomness = dict(cfg.get('randomness') or {})
    if randomness.get('seed') is None:
        cfg.randomness = dict(randomness, seed=stored_seed(checkpoint))
    cfg.load_from = checkpoint


def out_dir_of(cfg: Config) -> str | None:
    """Returns the folder of the checkpoints on this machine, None if it is the work folder.

    Args:
        cfg: The whole config of a training.
    """
    work_dir = cfg.work_dir
    hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    # mmengine puts the last part of the work folder's name after it
    out_dir = hook.get('out_dir') and os.path.join(
        hook['out_dir'], os.path.basename(work_dir.rstrip(os.sep))
    )
    return None if out_dir and '://' in out_dir else out_dir


def find_latest(cfg: Config) -> str | None:
    """Returns the checkpoint that ``auto`` means, None if there is none yet."""
    work_dir, out_dir = cfg.work_dir, out_dir_of(cfg)

    @cache
    def here() -> Shapes:
        init_default_scope(cfg.get('default_scope', 'mmengine'))
        return shapes_of(MODELS.build(cfg.model).state_dict())

    def find() -> str | None:
        return find_resumable_checkpoint(work_dir, lambda shapes: shapes == here(), out_dir)

    # files may be moved aside, which is for the only writer
    writable = os.path.isdir(work_dir) and os.access(work_dir, os.W_OK | os.X_OK)
    with claimed(work_dir) if writable and is_first_process(cfg.get('launcher')) else nullcontext():
        return find()
