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
        self._last = 0.0
        # what -> when it began, and after which step: a training goes on after its validations
        self._begun: dict[str, tuple[float, int]] = {}

    def _begin(self, what: str, first: int) -> None:
        self._last = time.monotonic()
        self._begun[what] = self._last, first

    def _tell(self, what: str, step: int, steps: int, more: str = '') -> None:
        now = time.monotonic()
        if not is_main_process() or (now - self._last < self.interval and step < steps):
            return
        self._last = now
        start, first = self._begun[what]
        minutes, seconds = divmod(round((now - start) / (step - first) * (steps - step)), 60)
        print(f'{self.name}: {what} {step}/{steps}{more}, {minutes}:{seconds:02} left', flush=True)

    def before_train(self, runner: Runner) -> None:
        self._begin('training', runner.iter)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        loss = f', loss {outputs["loss"].item():.2f}' if outputs and 'loss' in outputs else ''
        self._tell('training', runner.iter + 1, runner.max_iters, loss)

    def before_val(self, runner: Runner) -> None:
        self._begin('evaluating', 0)

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self._tell('evaluating', batch_idx + 1, len(runner.val_dataloader))
