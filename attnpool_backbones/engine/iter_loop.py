"""Iteration-based training that resumes without loading what was already seen."""

from typing import Any

from mmengine.dataset import InfiniteSampler
from mmengine.runner import IterBasedTrainLoop, Runner
from torch.utils.data import BatchSampler, DataLoader

from attnpool_backbones.engine.batch_source import BatchSource
from attnpool_backbones.engine.resumable_loop import ResumableLoop
from attnpool_backbones.registry import LOOPS


class NotStarted:
    """Shows a dataloader's dataset, but starts no workers when it is iterated."""

    def __init__(self, dataloader: DataLoader) -> None:
        self.dataset = dataloader.dataset

    def __iter__(self) -> Any:
        return iter(())


@LOOPS.register_module()
class ResumableIterBasedTrainLoop(ResumableLoop, IterBasedTrainLoop):
    """mmengine's loop, except for how it resumes.

    mmengine loads and throws away every batch up to the resumed iteration, which takes about as
    long as half the training did. Here only the sampler's indices are skipped. Loading starts when
    training starts, after the checkpoint was read. Signals and validations: see
    :class:`~attnpool_backbones.engine.resumable_loop.ResumableLoop`.

    Args:
        runner: The runner.
        dataloader: With mmengine's ``InfiniteSampler`` and without a batch
            sampler of its own.
        max_iters: Iterations of the whole training.
        val_begin: First iteration that may be followed by a validation. Default: 1.
        val_interval: Iterations between validations. Default: 1000.
        dynamic_intervals: Pairs of an iteration and the validation
            interval from there on. Default: None.

    Raises:
        ValueError: If the dataloader's sampler is another one.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict,
        max_iters: int,
        val_begin: int = 1,
        val_interval: int = 1000,
        dynamic_intervals: list[tuple[int, int]] | None = None,
    ) -> None:
        if isinstance(dataloader, dict):
            diff_rank_seed = runner._randomness_cfg.get('diff_rank_seed', False)
            dataloader = runner.build_dataloader(
                dataloader, seed=runner.seed, diff_rank_seed=diff_rank_seed
            )
        if (
            not isinstance(dataloader.sampler, InfiniteSampler)
            or type(dataloader.batch_sampler) is not BatchSampler
        ):
            raise ValueError(
                f'{type(self).__name__} needs the sampler InfiniteSampler and no batch_sampler, '
                f'but got {type(dataloader.sampler).__name__} and '
                f'{type(dataloader.batch_sampler).__name__}; use IterBasedTrainLoop with these'
            )
        super().__init__(
            runner, NotStarted(dataloader), max_iters, val_begin, val_interval, dynamic_intervals
        )
        self.dataloader = dataloader
        self.batches = BatchSource(dataloader, self._start_loading, fresh=self._fresh_batches)

    def _fresh_batches(self) -> BatchSampler:
        # an InfiniteSampler is used up by iterating
        sampler = self.dataloader.sampler
        sampler = type(sampler)(sampler.dataset, shuffle=sampler.shuffle, seed=sampler.seed)
        return BatchSampler(sampler, self.dataloader.batch_size, self.dataloader.drop_last)

    def _train(self) -> None:
        self.runner.call_hook('before_train_epoch')
        self.dataloader_iterator = self.batches(self._iter, self._iter)
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(self.dataloader_iterator))
            self._decide_current_val_interval()
            if self._validation_is_due():
                self._validate()
        self.runner.call_hook('after_train_epoch')

    def _validation_is_due(self) -> bool:
        return (
            self.runner.val_loop is not None
            and self._iter >= self.val_begin
            and (self._iter % self.val_interval == 0 or self._iter == self._max_iters)
        )
