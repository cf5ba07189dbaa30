"""What a training will take, measured on a few of its own steps."""

import io
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch import nn

from attnpool_backbones.launching.errors import PreflightError
from attnpool_backbones.machine import peak_memory
from attnpool_backbones.zoo.config_models import build_config_model

__all__ = [
    'Forecast',
    'count_validations',
    'epochs_within',
    'forecast',
    'largest_batch',
    'memory_used',
]

GIB = 2**30
WARM_UP = 2
"""Steps that are not counted: the first ones find memory and kernels."""
STEPS = 8
SECONDS = 60.0
"""After which no further step is measured."""
MEMORY = 0.8
"""Share of the memory that a batch may take."""
GAIN = 1.05
"""By which a batch of twice the size has to be faster for each image."""
LARGEST = 64


@dataclass(frozen=True)
class Forecast:
    """What a training will take.

    Args:
        step: Seconds of a step, loading included.
        steps: Of an epoch.
        epochs: How many.
        validation: Seconds of a validation.
        validations: How many.
        memory: Bytes that the training process holds at most; on CUDA, that the device does.
    """

    step: float
    steps: int
    epochs: int
    validation: float
    validations: int
    memory: int

    @property
    def seconds(self) -> float:
        """Of the whole training."""
        return self.epochs * self.steps * self.step + self.validations * self.validation


def memory_used() -> int:
    """Returns the most bytes held so far: of the device with CUDA, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved()
    # not ru_maxrss: a process inherits that of the one that started it
    return peak_memory()


def forecast(cfg: Config, steps: int = STEPS) -> Forecast:
    """Trains and validates a copy of the model for a few steps.

    Args:
        cfg: The whole config, fitted to the devices; it trains by epochs.
        steps: How many are measured.
    """
    epochs = cfg.train_cfg.get('max_epochs')
    if epochs is None:
        raise PreflightError(
            f'{cfg.filename} counts iterations; what a training takes is told for epochs only'
        )
    with _ready(cfg):
        model = _model(cfg)
        loader = Runner.build_dataloader(_loader(cfg, 'train'), seed=0)
        step = _seconds_of_steps(cfg, model, loader, steps)
        count, validation, interval = len(loader), 0.0, cfg.train_cfg.get('val_interval', 1)
        del loader
        if cfg.get('val_dataloader') is not None:
            validation = _seconds_of_validation(cfg, model, steps)
    validations = count_validations(epochs, interval, cfg.train_cfg.get('val_begin', 1))
    return Forecast(step, count, epochs, validation, validations, memory_used())


def count_validations(epochs: int, interval: int, begin: int = 1) -> int:
    """Counts the validations of mmengine's loop: every so many epochs, and after the last."""
    return sum(e >= begin and (e % interval == 0 or e == epochs) for e in range(1, epochs + 1))


def epochs_within(seconds: float, cost: Forecast, interval: Callable[[int], int]) -> int:
    """Returns how many epochs fit into a time, at least one.

    Args:
        seconds: Of the whole training.
        cost: What was measured.
        interval: Epochs between validations, by the number of epochs.
    """
    most = max(1, int(seconds // (cost.steps * cost.step)))
    for epochs in range(most, 1, -1):
        validations = count_validations(epochs, interval(epochs))
        if replace(cost, epochs=epochs, validations=validations).seconds <= seconds:
            return epochs
    return 1


def largest_batch(cfg: Config, images: int, tell: Callable[[str], None] = lambda line: None) -> int:
    """Finds the batch that fits into the memory and is still worth it.

    Doubled until it takes more than four fifths of the memory, is hardly faster for each image, or
    an epoch has less than eight steps.

    Args:
        cfg: The whole config, fitted to the devices; left as it is.
        images: To train on.
        tell: Called with a line for each batch.
    """
    best, speed = 1, 0.0
    total = _memory_of_machine()
    batch = 1
    while batch <= min(LARGEST, max(1, images // 8)):
        tried = deepcopy(cfg)  # a config's own copy shares its parts
        tried.train_dataloader.batch_size = batch
        before = memory_used()
        try:
            with _ready(tried):
                loader = Runner.build_dataloader(_loader(tried, 'train'), seed=0)
                rate = batch / _seconds_of_steps(tried, _model(tried), loader, 3)
                del loader
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            tell(f'batch {batch}: more memory than there is')
            break
        used = memory_used()
        tell(f'batch {batch}: {rate:.2f} images/s, {used / GIB:.1f} GiB')
        if used > MEMORY * total or rate < GAIN * speed:
            break
        best, speed = batch, rate
        # twice the batch takes about twice what this one added
        if used + 2 * max(used - before, 0) > MEMORY * total:
            break
        batch *= 2
    return best


def _memory_of_machine() -> int:
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[1]
    meminfo = Path('/proc/meminfo').read_text()
    lines = dict(line.split(':') for line in meminfo.splitlines())
    return int(lines['MemAvailable'].split()[0]) * 1024 + memory_used()


@contextmanager
def _ready(cfg: Config) -> Iterator[None]:
    # without a logger mmengine tells on the screen how each parameter was initialised, and metrics
    # that an untrained model finds nothing
    MMLogger.get_instance('forecast', log_level='CRITICAL')
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        yield


def _loader(cfg: Config, split: str) -> dict[str, Any]:
    loader = cfg[f'{split}_dataloader'].copy()
    loader.persistent_workers = False
    return loader


def _model(cfg: Config) -> nn.Module:
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    return build_config_model(cfg).to(device)


def _synchronised() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _seconds_of_steps(cfg: Config, model: nn.Module, loader: Any, steps: int) -> float:
    """Returns the mean of a step with its loading; the data may have fewer steps than asked for."""
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    model.train()
    times = []
    rounds = itertools.islice(itertools.chain(loader, loader), WARM_UP + steps)
    started = first = _synchronised()
    for batch in rounds:
        model.train_step(batch, optimizer)
        now = _synchronised()
        times.append(now - started)
        started = now
        if now - first > SECONDS and len(times) > WARM_UP:
            break
    counted = times[WARM_UP:] or times
    return sum(counted) / len(counted)


@torch.no_grad()
def _seconds_of_validation(cfg: Config, model: nn.Module, steps: int) -> float:
    loader = Runner.build_dataloader(_loader(cfg, 'val'), seed=0)
    evaluator = _evaluator(cfg, loader)
    model.eval()
    times = []
    started = first = _synchronised()
    for batch in itertools.islice(loader, WARM_UP + steps):
        evaluator.process(model.val_step(batch), batch)
        now = _synchronised()
        times.append(now - started)
        started = now
        if now - first > SECONDS / 2 and len(times) > WARM_UP:
            break
    # the first batches wait for the processes that load them, which is no part of the others
    counted = times[WARM_UP:] or times
    started = time.perf_counter()
    with redirect_stdout(io.StringIO()):
        evaluator.evaluate(len(loader.dataset))
    evaluation = (time.perf_counter() - started) / len(times)
    return (sum(counted) / len(counted) + evaluation) * len(loader)


def _evaluator(cfg: Config, loader: Any) -> Evaluator:
    evaluator = Evaluator(cfg.val_evaluator)
    evaluator.dataset_meta = loader.dataset.metainfo
    return evaluator
