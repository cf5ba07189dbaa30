"""Lines of progress tell the time that is left, of a training and of the validations inside it."""

from types import SimpleNamespace

import pytest
import torch

from attnpool_backbones.engine import ProgressHook, progress_hook


class Run:
    """A runner and a clock, which steps of training and validation move on.

    Args:
        monkeypatch: Sets the clock.
        steps: Of the training, each of 2 seconds.
        done: Of them before this run. Default: 0.
        interval: Of the hook, in seconds. Default: 0.
    """

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, steps: int, done: int = 0, interval: float = 0
    ) -> None:
        self.now = 1000.0
        monkeypatch.setattr(progress_hook, 'time', SimpleNamespace(monotonic=lambda: self.now))
        self.hook = ProgressHook('nano', interval)
        self.runner = SimpleNamespace(iter=done, max_iters=steps, val_dataloader=range(4))
        self.hook.before_train(self.runner)

    def train(self, steps: int, seconds: float = 2.0) -> None:
        for _ in range(steps):
            self.now += seconds
            self.hook.after_train_iter(self.runner, 0, outputs=dict(loss=torch.tensor(0.5)))
            self.runner.iter += 1

    def validate(self, seconds: float = 1.0) -> None:
        self.hook.before_val(self.runner)
        for step in range(4):
            self.now += seconds
            self.hook.after_val_iter(self.runner, step)


def test_training_goes_on_after_a_validation(monkeypatch, capsys):
    run = Run(monkeypatch, 100)
    run.train(50)
    assert capsys.readouterr().out.splitlines()[-1] == 'nano: training 50/100, loss 0.50, 1:40 left'
    run.validate()
    assert capsys.readouterr().out.splitlines() == [
        f'nano: evaluating {n}/4, 0:0{4 - n} left' for n in range(1, 5)
    ]
    run.train(1)
    # 106 seconds for 51 steps
    assert capsys.readouterr().out == 'nano: training 51/100, loss 0.50, 1:42 left\n'


def test_steps_before_a_resumed_run_took_no_time(monkeypatch, capsys):
    run = Run(monkeypatch, 100, done=90)
    run.train(5)
    assert capsys.readouterr().out.splitlines()[-1] == 'nano: training 95/100, loss 0.50, 0:10 left'


@pytest.mark.parametrize(
    ('seconds', 'left'), [(59.4, '0:59'), (59.7, '1:00'), (119.6, '2:00'), (3599.9, '60:00')]
)
def test_there_are_60_seconds_in_a_minute(seconds, left, monkeypatch, capsys):
    Run(monkeypatch, 2).train(1, seconds)
    assert capsys.readouterr().out == f'nano: training 1/2, loss 0.50, {left} left\n'


def test_lines_are_an_interval_apart_and_the_last_step_has_one(monkeypatch, capsys):
    run = Run(monkeypatch, 12, interval=10)
    run.train(12)
    steps = [line.split()[2] for line in capsys.readouterr().out.splitlines()]
    assert steps == ['5/12,', '10/12,', '12/12,']
