"""What a change of a model costs in a training step, both forms in turns.

A slower moment of the machine meets both forms so; what is told is the ratio of the medians.
"""

import copy
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from mmengine.config import Config
from torch import nn

from attnpool_backbones.benchmark.random_batches import random_batch
from attnpool_backbones.zoo.config_models import build_config_model

__all__ = ['compared', 'median_seconds', 'training_step']


def training_step(cfg: Config, size: tuple[int, int], batch: int) -> Callable[[], float]:
    """Returns a step that computes losses of a batch and their gradients, and tells its seconds.

    Args:
        cfg: Of a detector or a segmentor.
        size: Height and width of the images in pixels.
        batch: Images in a step.
    """
    model: nn.Module = build_config_model(cfg).train()
    data = random_batch(cfg, size, batch)

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


def median_seconds(steps: Sequence[Callable[[], float]], rounds: int) -> list[float]:
    """Runs steps in turns, every other round in reverse order.

    Args:
        steps: Each tells its seconds.
        rounds: After one that does not count.

    Returns:
        The median of each.
    """
    times: list[list[float]] = [[] for _ in steps]
    for i in range(rounds + 1):
        for k in range(len(steps)) if i % 2 else reversed(range(len(steps))):
            seconds = steps[k]()
            if i:
                times[k].append(seconds)
    return [statistics.median(values) for values in times]


def compared(name: str, before: float, after: float, change: str) -> str:
    """Returns a line with both medians and the ratio, of seconds."""
    return (
        f'{name}: {1000 * before:.1f} ms, {1000 * after:.1f} ms with {change}, '
        f'{100 * (after / before - 1):+.1f} %'
    )
