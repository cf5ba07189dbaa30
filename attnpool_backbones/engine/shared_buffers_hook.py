"""Validates what is saved: the running statistics of the first process, in all of them."""

from typing import Any

from mmengine.dist import broadcast, get_world_size
from mmengine.hooks import Hook

from attnpool_backbones.registry import HOOKS

__all__ = ['SharedBuffersHook']


@HOOKS.register_module()
class SharedBuffersHook(Hook):
    """Gives all processes the buffers of the first one before they validate.

    mmengine keeps parameters equal in all processes, but each one has running statistics of
    BatchNorm of its own images. A checkpoint has those of the first, so a score that each process
    adds to with its own belongs to no checkpoint.

    Their mean (mmengine's ``SyncBuffersHook``) would be no cure: in a loop over iterations the
    checkpoint is saved before the validation, and a resumed run knows the statistics of the first
    process only, so it would go on with another mean than an uninterrupted one. Training itself
    does not use running statistics.
    """

    # after EMAHook, which puts averages in the place of the model's values
    priority = 'LOW'

    def before_val_epoch(self, runner: Any) -> None:
        """Sends the buffers.

        Args:
            runner: The run.
        """
        if get_world_size() > 1:
            for buffer in runner.model.buffers():
                broadcast(buffer)
