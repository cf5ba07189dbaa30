"""Epoch-based training that goes on in the middle of an epoch."""

import logging

from mmengine.logging import print_log
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from attnpool_backbones.engine.batch_source import BatchSource
from attnpool_backbones.engine.resumable_loop import BATCHES_DONE, ResumableLoop
from attnpool_backbones.registry import LOOPS


@LOOPS.register_module()
class ResumableEpochBasedTrainLoop(ResumableLoop, EpochBasedTrainLoop):
    """mmengine's loop over epochs, which may be stopped and resumed at any iteration.

    mmengine starts the epoch of the checkpoint over, while counters and schedules run on. Here the
    batches that were trained on are left out, without being loaded. Exact with
    :class:`~attnpool_backbones.engine.RandomStateHook`, and with every sampler whose order depends
    on its seed and its epoch only, as that of mmengine's and mmdet's does.

    Args:
        runner: The runner.
        dataloader: Or its config.
        max_epochs: Epochs of the whole training.
        val_begin: First epoch that may be followed by a validation. Default: 1.
        val_interval: Epochs between validations. Default: 1.
        dynamic_intervals: Pairs of an epoch and the validation interval from there on.
            Default: None.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict,
        max_epochs: int,
        val_begin: int = 1,
        val_interval: int = 1,
        dynamic_intervals: list[tuple[int, int]] | None = None,
    ) -> None:
        super().__init__(runner, dataloader, max_epochs, val_begin, val_interval, dynamic_intervals)
        self.batches = BatchSource(self.dataloader, self._start_loading)

    def _train(self) -> None:
        skip = self._batches_done()
        while self._epoch < self._max_epochs and not self.stop_training:
            self._run_epoch_from(skip)
            skip = 0
            self._decide_current_val_interval()
            if self._validation_is_due():
                self._validate()

    def run_epoch(self) -> None:
        """Trains for one whole epoch."""
        self._run_epoch_from(0)

    def _run_epoch_from(self, first: int) -> None:
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        for index, batch in enumerate(self.batches(first, self._iter), first):
            self.run_iter(index, batch)
        self.runner.message_hub.update_info(BATCHES_DONE, [0, len(self.dataloader)])
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def _validation_is_due(self) -> bool:
        return (
            self.runner.val_loop is not None
            and not self._batches_done()
            and self._epoch >= self.val_begin
            and (self._epoch % self.val_interval == 0 or self._epoch == self._max_epochs)
        )

    def _batches_done(self) -> int:
        """Tells how many batches of the current epoch the resumed checkpoint has seen."""
        done, of, *epoch = self.runner.message_hub.get_info(BATCHES_DONE) or (0, 1)
        batches = len(self.dataloader)
        if epoch and epoch != [self._epoch]:
            return 0  # other loops pass on what they do not know
        if not epoch and done == of and self._iter == self._epoch * of:
            return 0  # of the epoch before: files of before do not tell the epoch
        if not done or of == batches:
            return int(done)
        share = int(done) * batches // int(of)
        print_log(
            f'The checkpoint was saved after {done} of {of} batches of its epoch, which now has '
            f'{batches} (another data set, batch size or number of processes?): the training goes '
            f'on after {share} of them.',
            logger='current',
            level=logging.WARNING,
        )
        return share
