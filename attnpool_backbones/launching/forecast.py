"""What a training will take, measured on a few of its own steps."""

import io
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch import nn

from attnpool_backbones.atomic_files import write_atomically
from attnpool_backbones.command_line import UserError
from attnpool_backbones.engine.saving_errors import require_savable
from attnpool_backbones.launching.config_models import build_config_model
from attnpool_backbones.launching.model_check import require_fitting_parts
from attnpool_backbones.machine import available_memory, peak_memory, resident_memory

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
        start: Seconds until the first step: model, data sets, the processes that load images.
            Default: 0.0.
        saving: Seconds of writing a checkpoint. Default: 0.0.
        save_every: Epochs between checkpoints; None: there are none. Default: None.
        saves_best: Whether a better validation is saved too. Default: False.
    """

    step: float
    steps: int
    epochs: int
    validation: float
    validations: int
    memory: int
    start: float = 0.0
    saving: float = 0.0
    save_every: int | None = None
    saves_best: bool = False

    @property
    def checkpoints(self) -> int:
        """How often one is written, if each validation is better than those before."""
        # the best one is a file of its own, whose name is then noted in the last one
        best = 2 * self.validations if self.saves_best else 0
        # what came after the last epoch is saved at the end
        return best + (self.epochs // self.save_every + 1 if self.save_every else 0)

    @property
    def seconds(self) -> float:
        """Of the whole training."""
        return (
            self.start
            + self.epochs * self.steps * self.step
            + self.validations * self.validation
            + self.checkpoints * self.saving
        )


class _Pace(NamedTuple):
    """Seconds of a batch in the middle of a run, and of the wait for the first one."""

    each: float
    wait: float


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
        raise UserError(
            f'{cfg.filename} counts iterations; what a training takes is told for epochs only'
        )
    with _ready(cfg):
        started = time.perf_counter()
        model = _model(cfg)
        optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
        loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
        require_fitting_parts(model, cfg, cfg.train_dataloader.get('batch_size', 1))
        start = time.perf_counter() - started
        step = _pace_of_steps(model, optimizer, loader, steps)
        count, interval = len(loader), cfg.train_cfg.get('val_interval', 1)
        del loader
        saving = _seconds_of_saving(cfg, model, optimizer)
        validation = _Pace(0.0, 0.0)
        if cfg.get('val_dataloader') is not None:
            started = time.perf_counter()
            loader = Runner.build_dataloader(cfg.val_dataloader, seed=0)
            start += time.perf_counter() - started
            validation = _pace_of_validation(cfg, model, loader, steps)
    validations = count_validations(epochs, interval, cfg.train_cfg.get('val_begin', 1))
    hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    every = hook.get('interval', -1)
    return Forecast(
        step.each,
        count,
        epochs,
        validation.each,
        validations,
        memory_used(),
        start=start + step.wait + validation.wait,
        saving=saving,
        save_every=every if every > 0 and hook.get('by_epoch', True) else None,
        saves_best=hook.get('save_best') is not None,
    )


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
    most = max(1, int((seconds - cost.start) // (cost.steps * cost.step)))
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
                loader = Runner.build_dataloader(tried.train_dataloader, seed=0)
                model = _model(tried)
                optimizer = build_optim_wrapper(model, tried.optim_wrapper)
                rate = batch / _pace_of_steps(model, optimizer, loader, 3).each
                del loader, model, optimizer
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
    # not the peak: what was freed is available
    return available_memory() + resident_memory()


@contextmanager
def _ready(cfg: Config) -> Iterator[None]:
    # without a logger mmengine tells on the screen how each parameter was initialised, and metrics
    # that an untrained model finds nothing; pycocotools tells of each file that it reads
    MMLogger.get_instance('forecast', log_level='CRITICAL')
    with (
        DefaultScope.overwrite_default_scope(cfg.default_scope),
        redirect_stdout(io.StringIO()),
    ):
        yield


def _model(cfg: Config) -> nn.Module:
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    return build_config_model(cfg).to(device)


def _synchronised() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _pace_of_steps(model: nn.Module, optimizer: OptimWrapper, loader: Any, steps: int) -> _Pace:
    """Measures steps with their loading; the data may have fewer than asked for."""
    model.train()
    batches = itertools.islice(itertools.chain(loader, loader), WARM_UP + steps)
    return _pace(batches, lambda batch: model.train_step(batch, optimizer), SECONDS)


def _pace(batches: Iterator[Any], run: Callable[[Any], Any], most: float) -> _Pace:
    """Times a function of batches.

    The first ones are not counted: they find memory and kernels, which stay found, and wait for the
    processes that load, which start anew with the training.
    """
    times, waits = [], []
    started = first = _synchronised()
    for batch in batches:
        waits.append(time.perf_counter() - started)
        run(batch)
        now = _synchronised()
        times.append(now - started)
        started = now
        if now - first > most and len(times) > WARM_UP:
            break
    counted = times[WARM_UP:] or times
    return _Pace(sum(counted) / len(counted), waits[0])


@torch.no_grad()
def _pace_of_validation(cfg: Config, model: nn.Module, loader: Any, steps: int) -> _Pace:
    """Measures a whole validation by some of its batches."""
    evaluator = _evaluator(cfg, loader)
    model.eval()
    processed = 0

    def run(batch: Any) -> None:
        nonlocal processed
        evaluator.process(model.val_step(batch), batch)
        processed += 1
        if processed == 1 < len(loader):
            # what the first evaluation takes longer is no matter of the number of images
            evaluator.evaluate(len(loader.dataset))

    pace = _pace(itertools.islice(loader, WARM_UP + steps), run, SECONDS / 2)
    started = time.perf_counter()
    evaluator.evaluate(len(loader.dataset))
    evaluation = (time.perf_counter() - started) / max(processed - 1, 1)
    return _Pace((pace.each + evaluation) * len(loader), pace.wait)


def _seconds_of_saving(cfg: Config, model: nn.Module, optimizer: OptimWrapper) -> float:
    """Writes a checkpoint where the training will, and takes it away again."""
    try:
        os.makedirs(cfg.work_dir, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cfg.work_dir, prefix='.forecast') as folder:
            started = time.perf_counter()
            checkpoint = dict(state_dict=model.state_dict(), optimizer=optimizer.state_dict())
            require_savable(checkpoint, None)
            content = io.BytesIO()
            torch.save(checkpoint, content)
            write_atomically(content.getvalue(), Path(folder, 'checkpoint.pth'))
            return time.perf_counter() - started
    except OSError:
        # the training itself says what is wrong with its folder
        return 0.0


def _evaluator(cfg: Config, loader: Any) -> Evaluator:
    evaluator = Evaluator(cfg.val_evaluator)
    evaluator.dataset_meta = loader.dataset.metainfo
    return evaluator
