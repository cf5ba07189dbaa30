"""What the two resumable training loops share: stopping by signals, and validations made up for."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import EMAHook
from torch import nn

from attnpool_backbones.engine.agreement import Agreement
from attnpool_backbones.engine.batch_source import BatchSource, with_replacements
from attnpool_backbones.engine.stand_in import StandIn, layers
from attnpool_backbones.engine.work_folder_lock import claimed
from attnpool_backbones.stop_signals import StopSignals

__all__ = ['ResumableLoop', 'ValidationStopped']

BATCHES_DONE = 'batches_done'
"""Where a checkpoint tells how many batches were trained on, of how many, and of which epoch."""

VALIDATED = 'iter_validated'
"""Where a checkpoint tells after which iteration the last whole validation was.

mmengine's log would show what begins with ``val`` beside the scores.
"""


class ValidationStopped(Exception):
    """A validation was left, because the training is to stop."""


class StoppableBatches(StandIn):
    """The batches of a validation, which all processes leave together when one is to stop.

    Args:
        loader: Its dataloader.
        agreement: Of the processes, which may have different numbers of batches.
        signals: What this process was told.
    """

    stands_for = 'loader'

    def __init__(self, loader: Any, agreement: Agreement, signals: StopSignals) -> None:
        self.loader = loader
        self.agreement = agreement
        self.signals = signals

    def __iter__(self) -> Iterator:
        (common,) = self.agreement.lowest(len(self.loader))
        for index, batch in enumerate(self.loader):
            if index < common and self.agreement.highest(self.signals.wanted)[0]:
                raise ValidationStopped
            yield batch

    def __len__(self) -> int:
        return len(self.loader)


class ResumableLoop:
    """Part of a training loop of mmengine, which is the other base class.

    - SIGTERM, SIGUSR1, SIGHUP and SIGINT end the training after the running iteration;
      :class:`~attnpool_backbones.engine.SafeCheckpointHook` saves before. Without such a hook
      signals do what they did before the training.
    - They leave a validation at its next batch; when the training goes on, it is made up, as is
      one that a kill cut off.
    """

    signals: StopSignals | None
    agreement: Agreement
    batches: BatchSource
    runner: Any

    def run(self) -> nn.Module:
        """Trains from where the runner stands to the end.

        Returns:
            The trained model.
        """
        self.runner.call_hook('before_train')
        self.agreement = Agreement(self.runner.world_size)
        writer = claimed(self.runner.work_dir) if is_main_process() else nullcontext()
        # a hook that has this saves, too, when a signal asks to stop
        saves = any(hasattr(hook, 'after_stopped_validation') for hook in self.runner.hooks)
        try:
            with writer, StopSignals() if saves else nullcontext() as self.signals:
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
        # a hook may have put its own layer around it
        if not any(isinstance(layer, StoppableBatches) for layer in layers(validation.dataloader)):
            batches = with_replacements(validation.dataloader)
            if self.signals is not None:
                batches = StoppableBatches(batches, self.agreement, self.signals)
            validation.dataloader = batches
        try:
            validation.run()
        except ValidationStopped:
            for hook in self.runner.hooks:
                # it exchanges the weights before a validation, and back after it
                if isinstance(hook, EMAHook):
                    hook.after_val_epoch(self.runner)
            self.runner.call_hook('after_stopped_validation')
