"""Randomness that does not depend on whether a run was interrupted."""

import logging
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import IterBasedTrainLoop, Runner
from torch.utils.data import Dataset, get_worker_info

from attnpool_backbones.engine.resumable_loop import ResumableLoop
from attnpool_backbones.ops.choice import decide_as, decisions
from attnpool_backbones.registry import HOOKS

DECISIONS = 'operator_decisions'
"""Where a checkpoint tells how operators compute that were measured in two ways."""

# first word of a seed, so that data and model never draw the same numbers
MODEL, DATA, VALIDATION = 0, 1, 2


def seed_generators(*words: int) -> None:
    """Seeds Python, numpy and torch from a tuple of numbers.

    Args:
        *words: Not negative. Every tuple gives an unrelated state.
    """
    states = np.random.SeedSequence(words).generate_state(3)
    random.seed(int(states[0]))
    np.random.seed(int(states[1]))
    # for accelerators that are not there torch.manual_seed notes who has called it, which takes
    # hundreds of times as long
    seed = torch.manual_seed if torch.accelerator.is_available() else _seed_processor
    seed(int(states[2]))


def _seed_processor(seed: int) -> None:
    torch.default_generator.manual_seed(seed)


class SeededBatches:
    """Loads the batches of a dataset, each with random numbers that depend only on its number.

    Set as ``dataset.__getitems__``, which torch calls for every batch, in the process that loads
    it. Workers take turns, so a worker knows the number of each of its batches.

    Args:
        dataset: Source of the samples.
        seed: Seed of the run.
        rank: Rank of the process in a distributed run.
        first: Number, in the whole run, of the first batch that will be loaded.
    """

    def __init__(self, dataset: Dataset, seed: int, rank: int, first: int) -> None:
        self.dataset = dataset
        self.seed = seed
        self.rank = rank
        self.first = first
        self.loaded = 0

    def __call__(self, indices: Sequence[int]) -> list:
        worker = get_worker_info()
        turn, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        number = self.first + turn + self.loaded * workers
        self.loaded += 1
        seed_generators(DATA, self.seed, self.rank, number)
        return [self.dataset[index] for index in indices]


@HOOKS.register_module()
class RandomStateHook(Hook):
    """Makes a resumed run draw the random numbers of an uninterrupted one, and compute as it did.

    mmengine restores weights, optimizer, schedulers and counters, but no random state. With this
    hook the random numbers of every iteration (dropout, drop path, sampling of RoIs) and of every
    batch (augmentation, in worker processes too) depend only on the seed of the run, the iteration
    and the rank. Works with epoch-based training and with
    :class:`~attnpool_backbones.engine.ResumableIterBasedTrainLoop`. The seed of the run has to be
    the same: set ``randomness=dict(seed=...)``, or resume by ``tools/train.py``, which takes it
    from the checkpoint. The number of workers may change; the number of processes may not. With
    the two resumable loops, batches that a killed worker had begun are made again as they were.

    Operators that run on a CPU in the faster of two ways, whose bits differ, stay with the one that
    the run began with. Persistent workers are started anew at every epoch, because they cannot be
    told its number.
    """

    # before any hook that draws random numbers
    priority = 'VERY_HIGH'

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Tells how operators compute.

        Args:
            runner: The running training.
            checkpoint: What will be written.
        """
        checkpoint[DECISIONS] = decisions()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Makes operators compute as in the run that is resumed, if this processor can.

        Args:
            runner: About to start.
            checkpoint: What was read.
        """
        others = checkpoint.pop(DECISIONS, None)
        if not runner._resume or not isinstance(others, dict):
            return
        before = decisions()
        decide_as(others)
        changed = [name for name, decision in before.items() if decisions()[name] != decision]
        if changed:
            runner.logger.info(
                f'{", ".join(changed)} on the CPU: computed as before the checkpoint, not in the '
                'way that was measured here.'
            )

    def before_train(self, runner: Runner) -> None:
        """Warns of a loop that starts loading before it knows where it resumes.

        Args:
            runner: The starting training.
        """
        loop = runner.train_loop
        self.seeds_data = isinstance(loop, ResumableLoop) or not isinstance(
            loop, IterBasedTrainLoop
        )
        if not self.seeds_data:
            print_log(
                f'{type(loop).__name__} is not resumed exactly; use train_cfg=dict('
                "type='attnpool_backbones.ResumableIterBasedTrainLoop', ...)",
                logger='current',
                level=logging.WARNING,
            )

    def before_train_epoch(self, runner: Runner) -> None:
        """Numbers the batches of the epoch, unless the loop tells where its loading starts.

        Args:
            runner: The running training.
        """
        if self.seeds_data and not isinstance(runner.train_loop, ResumableLoop):
            self.before_loading(runner, runner.iter)

    def before_loading(self, runner: Runner, number: int) -> None:
        """Numbers the batches that will be loaded.

        Args:
            runner: The running training.
            number: Number of the first of them, in the whole run.
        """
        loader = runner.train_loop.dataloader
        if loader.persistent_workers:
            loader._iterator = None
        loader.dataset.__getitems__ = SeededBatches(
            loader.dataset, runner.seed, runner.rank, first=number
        )

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seeds the training process for one iteration.

        Args:
            runner: The running training.
            batch_idx: Index of the batch in its epoch.
            data_batch: The batch.
        """
        seed_generators(MODEL, runner.seed, runner.rank, runner.iter)

    def before_val_epoch(self, runner: Runner) -> None:
        """Seeds the process for a validation, which may be made up for after a kill.

        Args:
            runner: The running training.
        """
        seed_generators(VALIDATION, runner.seed, runner.rank, runner.iter)
