"""``--resume``: which checkpoint a run goes on from, and the seed that goes with it."""

from pathlib import Path

from mmengine.config import Config

from attnpool_backbones.launching.checkpoint_check import require_checkpoint
from attnpool_backbones.launching.errors import PreflightError
from attnpool_backbones.launching.latest_checkpoint import (
    find_resumable_checkpoint,
    is_resumable,
    stored_seed,
)

__all__ = ['choose_checkpoint_to_resume']


def choose_checkpoint_to_resume(cfg: Config, resume: str | None) -> None:
    """Resolves ``--resume auto`` or ``--resume PATH`` into ``load_from`` and the seed.

    Without a checkpoint in the work folder ``auto`` starts from the beginning, so that one command
    serves the first start and every restart.

    Args:
        cfg: The whole config, changed in place.
        resume: ``'auto'``, a checkpoint's file or address, or None for what the config says.

    Raises:
        PreflightError: If the checkpoint is not there, or is none of a training.
    """
    if resume is None:
        if not cfg.get('resume'):
            return
        resume = cfg.get('load_from') or 'auto'
    checkpoint = find_resumable_checkpoint(cfg.work_dir) if resume == 'auto' else resume
    cfg.resume = checkpoint is not None
    if checkpoint is None:
        return
    if '://' not in checkpoint:
        require_checkpoint(checkpoint)
        if not is_resumable(Path(checkpoint)):
            raise PreflightError(
                f'cannot resume from {checkpoint}: it is damaged, or not a '
                'checkpoint of a training (only weights?)'
            )
        # mmengine restores the seed too late for the sampler, which is built before
        randomness = dict(cfg.get('randomness') or {})
        if randomness.get('seed') is None:
            cfg.randomness = dict(randomness, seed=stored_seed(checkpoint))
    cfg.load_from = checkpoint
