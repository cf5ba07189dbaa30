"""A broken loss stops the training with its name, before a checkpoint is spoilt."""

from pathlib import Path

import pytest

from attnpool_backbones.engine import InvalidLossHook
from attnpool_backbones.engine.invalid_loss_hook import InvalidLossError
from tests.engine.tiny_run import make_config, make_runner

HOOK = dict(type='attnpool_backbones.InvalidLossHook')


def test_names_iteration_and_losses(tmp_path: Path) -> None:
    runner = make_runner('invalid', make_config(tmp_path, hooks=(HOOK,), nan_at=12))
    message = r'iteration 12 \(epoch 2\): .*loss_square \d.*loss_size nan'
    with pytest.raises(InvalidLossError, match=message):
        runner.train()
    assert not (tmp_path / 'epoch_2.pth').exists()


def test_interval(tmp_path: Path) -> None:
    hook = dict(HOOK, interval=5)
    runner = make_runner('invalid', make_config(tmp_path, hooks=(hook,), nan_at=12))
    with pytest.raises(InvalidLossError, match='iteration 15 '):
        runner.train()


def test_finite_training_ends(tmp_path: Path) -> None:
    runner = make_runner('invalid', make_config(tmp_path, hooks=(HOOK,)))
    runner.train()
    assert (tmp_path / 'epoch_4.pth').exists()


@pytest.mark.parametrize('interval', [0, -1])
def test_wrong_interval(interval: int) -> None:
    with pytest.raises(ValueError, match='interval'):
        InvalidLossHook(interval)
