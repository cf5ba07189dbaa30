"""What the two resumable training loops share: stopping by signals, and validations made up for."""

from contextlib import nullcontext
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import EMAHook
from torch import nn
from torch.utils.data import DataLoader

from attnpool_backbones.engine.batch_source import BatchSource
from attnpool_backbones.engine.work_folder_lock import claimed
from attnpool_backbones.stop_signals import StopSignals

__all__ = ['ResumableLoop', 'ValidationStopped']

BATCHES_DONE = 'batches_done'
"""Where a checkpoint tells how many batches of its epoch were trained on, and of how many."""

VALIDATED = 'validated_iter'
"""Where a checkpoint tells after which iteration the last whole validation was."""


class ValidationStopped(Exception):
    """A validation was left, because the training is to stop."""


class ResumableLoop:
    """Part of a training loop of mmengine, which is the other base class.

    - SIGTERM, SIGUSR1, SIGHUP and SIGINT end the training after the running iteration;
      :class:`~attnpool_backbones.engine.SafeCheckpointHook` saves before.
    - A validation that a kill cut off is made up when the training goes on.
    """

    signals: StopSignals
    batches: BatchSource
    runner: Any

    def run(self) -> nn.Module:
        """Trains from where the runner stands to the end.

        Returns:
            The trained model.
        """
        self.runner.call_hook('before_train')
        writer = claimed(self.runner.work_dir) if is_main_process() else nullcontext()
        try:
            with writer, StopSignals() as self.signals:
                self._make_up_validation()
                self._train()
        finally:
            self.batches.close()
        self.runner.call_hook('after_train')
        return self.runner.model

    def _train(self) -> None:
        raise NotImplementedError

    def _validation_is_due(self) -> bool:
        raise NotImplementedError

    def _start_loading(self, number: int) -> None:
        self.runner.call_hook('before_loading', number=number)

    def _make_up_validation(self) -> None:
        done = self.runner.message_hub.get_info(VALIDATED)
        self._decide_current_val_interval()
        if self._iter and done != self._iter and self._validation_is_due():
            self.runner.logger.info(
                f'The validation after iteration {self._iter} is made up; the checkpoint was saved '
                'before it.'
            )
            self._validate()

    def _validate(self) -> None:
        validation = self.runner.val_loop
        if isinstance(validation.dataloader, DataLoader) and validation.dataloader.batch_sampler:
            # loading processes that are killed are replaced here, too
            validation.dataloader = BatchSource(validation.dataloader, lambda number: None)
        try:
            validation.run()
        except ValidationStopped:
            for hook in self.runner.hooks:
                # it exchanges the weights before a validation, and back after it
                if isinstance(hook, EMAHook):
                    hook.after_val_epoch(self.runner)
            self.runner.call_hook('after_stopped_validation')
