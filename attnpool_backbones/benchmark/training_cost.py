"""What a change of a model costs in a training step, both forms in turns.

A slower moment of the machine meets both forms so. What is told is the median difference of a turn
over the median of the first form, with its 95 % interval.
"""

import copy
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import nn

from attnpool_backbones.benchmark.checks_cost import interval
from attnpool_backbones.benchmark.random_batches import random_batch

__all__ = ['compared', 'training_step']

SIZE, BATCH = (192, 192), 8


def training_step(model: nn.Module) -> Callable[[], float]:
    """Returns a step that computes losses of a batch and their gradients, and tells its seconds.

    Args:
        model: A detector or a segmentor in training mode, with its config as ``cfg``.
    """
    data = random_batch(model.cfg, SIZE, BATCH)

    def step() -> float:
        prepared = model.data_preprocessor(copy.deepcopy(data), True)
        torch.manual_seed(0)  # the same samples of RoIs for all forms
        begun = time.perf_counter()
        loss, _ = model.parse_losses(model(**prepared, mode='loss'))
        loss.backward()
        seconds = time.perf_counter() - begun
        model.zero_grad()
        return seconds

    return step


def compared(name: str, before: Sequence[float], after: Sequence[float], change: str) -> str:
    """Returns a line with both medians and what the change costs, of the seconds of all turns."""
    share, low, high = (
        f'{100 * value:+.1f}' for value in interval(list(zip(after, before, strict=True)))
    )
    medians = [1000 * statistics.median(seconds) for seconds in (before, after)]
    return (
        f'{name}: {medians[0]:.1f} ms, {medians[1]:.1f} ms with {change}, {share} % '
        f'({low} to {high})'
    )
