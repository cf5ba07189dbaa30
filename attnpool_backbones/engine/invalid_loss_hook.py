"""Stops training when a loss is no longer a number, and says which."""

from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from attnpool_backbones.command_line import UserError
from attnpool_backbones.registry import HOOKS

__all__ = ['InvalidLossError', 'InvalidLossHook']


class InvalidLossError(UserError):
    """A training loss became infinite or NaN."""


@HOOKS.register_module()
class InvalidLossHook(Hook):
    """Raises as soon as a training loss is infinite or NaN.

    Args:
        interval (int): Check every that many iterations. On a GPU every check waits for the
            device. Defaults to 1.
    """

    # before the logger writes the broken values and before a checkpoint is saved
    priority = 'VERY_HIGH'

    def __init__(self, interval: int = 1) -> None:
        if interval < 1:
            raise ValueError(f'interval has to be at least 1, but is {interval}')
        self.interval = interval

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict[str, torch.Tensor] | None = None,
    ) -> None:
        """Checks the losses of one iteration.

        Args:
            runner (Runner): The running training.
            batch_idx (int): Index of the batch in its epoch.
            data_batch (Any): The batch.
            outputs (dict): The losses by name, and their sum as ``loss``.

        Raises:
            InvalidLossError: Naming the iteration and every loss.
        """
        if not self.every_n_train_iters(runner, self.interval) or outputs is None:
            return
        losses = {
            name: torch.as_tensor(value)
            for name, value in outputs.items()
            if name == 'loss' or 'loss' in name
        }
        if all(torch.isfinite(loss).all() for loss in losses.values()):
            return
        values = ', '.join(
            f'{name} {loss.float().mean().item():g}' for name, loss in losses.items()
        )
        raise InvalidLossError(
            f'the loss is not finite at iteration {runner.iter + 1} (epoch {runner.epoch + 1}): '
            f'{values}. Usual causes: learning rate too high, no gradient clipping, half '
            'precision, or broken annotations.'
        )
