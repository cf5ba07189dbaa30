"""Progress of a run as one line every few seconds, for people who watch it."""

import time
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from attnpool_backbones.registry import HOOKS


@HOOKS.register_module()
class ProgressHook(Hook):
    """Prints step, loss and remaining time of training, and step and remaining time of evaluation.

    For short runs whose log level is too high for mmengine's own lines.

    Args:
        name: Stands before each line.
        interval: Seconds between two lines.
    """

    priority = 'VERY_LOW'

    def __init__(self, name: str, interval: float = 10.0):
        self.name = name
        self.interval = interval
        self._start = self._last = 0.0
        self._first = 0

    def _begin(self, first: int) -> None:
        self._start = self._last = time.monotonic()
        self._first = first

    def _tell(self, what: str, step: int, steps: int, more: str = '') -> None:
        now = time.monotonic()
        if not is_main_process() or (now - self._last < self.interval and step < steps):
            return
        self._last = now
        left = (now - self._start) / (step - self._first) * (steps - step)
        print(
            f'{self.name}: {what} {step}/{steps}{more}, {left // 60:.0f}:{left % 60:02.0f} left',
            flush=True,
        )

    def before_train(self, runner: Runner) -> None:
        self._begin(runner.iter)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        loss = f', loss {outputs["loss"].item():.2f}' if outputs and 'loss' in outputs else ''
        self._tell('training', runner.iter + 1, runner.max_iters, loss)

    def before_val(self, runner: Runner) -> None:
        self._begin(0)

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self._tell('evaluating', batch_idx + 1, len(runner.val_dataloader))
