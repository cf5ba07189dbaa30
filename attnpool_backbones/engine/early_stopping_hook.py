"""Early stopping that counts on when a training is resumed."""

import logging
from typing import Any

from mmengine.hooks import EarlyStoppingHook
from mmengine.logging import print_log
from mmengine.runner import Runner

from attnpool_backbones.registry import HOOKS

__all__ = ['ResumableEarlyStoppingHook']

STATE = 'early_stopping'
"""Where a checkpoint tells, by metric, the best score and how many validations came after it."""


@HOOKS.register_module()
class ResumableEarlyStoppingHook(EarlyStoppingHook):
    """mmengine's hook, whose best score and count of validations are part of a checkpoint.

    Takes the arguments of :class:`mmengine.hooks.EarlyStoppingHook`. A training that it had ended
    does not go on when it is resumed, unless ``patience`` was raised. A metric that a validation
    does not have is told in the log, and stops nothing.
    """

    # before the checkpoint hook, whose files are to have it
    priority = 'LOW'

    def before_train(self, runner: Runner) -> None:
        """Takes over what a resumed checkpoint tells.

        Args:
            runner: The starting training.
        """
        states = runner.message_hub.runtime_info.get(STATE)
        state = states.get(self.monitor) if isinstance(states, dict) else None
        if not isinstance(state, dict):
            return
        best, waited = state.get('best_score'), state.get('wait_count')
        if not isinstance(best, (int, float)) or type(waited) is not int:
            return
        self.best_score, self.wait_count = float(best), waited
        if self.wait_count >= self.patience:
            runner.train_loop.stop_training = True
            print_log(
                f'The training had been stopped: {self.monitor} did not improve in '
                f'{self.wait_count} validations, best {self.best_score:.3f}. A larger patience '
                'lets it go on.',
                logger='current',
                level=logging.WARNING,
            )

    def after_val_epoch(self, runner: Runner, metrics: dict[str, Any]) -> None:
        """Decides whether to stop, and notes what it knows for the next checkpoint.

        Args:
            runner: The running training.
            metrics: The scores.

        Raises:
            RuntimeError: With ``strict``, if the metric is not among them.
        """
        if self.monitor not in metrics and not self.strict:
            runner.logger.warning(
                f'There is no early stopping by {self.monitor}: this validation has '
                f'{", ".join(metrics) or "no scores"}.'
            )
            return
        super().after_val_epoch(runner, metrics)
        states = runner.message_hub.runtime_info.get(STATE)
        known = dict(states) if isinstance(states, dict) else {}
        known[self.monitor] = dict(best_score=float(self.best_score), wait_count=self.wait_count)
        runner.message_hub.update_info(STATE, known)
