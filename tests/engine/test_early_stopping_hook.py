"""Early stopping counts on when a training is resumed, as if it had never been stopped."""

import pytest
from mmengine.hooks import Hook

from tests.engine.test_stopping import Validations, runner_of
from tests.engine.tiny_run import Killed


class Kill(Hook):
    """Ends a training after so many iterations."""

    priority = 'LOWEST'

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def after_train_iter(self, runner: object, batch_idx: int, **_: object) -> None:
        if runner.iter + 1 == self.iteration:
            raise Killed


def stopping(patience: int) -> tuple[dict]:
    """No error is ever better by so much: the second validation is the first that is not."""
    return (
        dict(
            type='attnpool_backbones.ResumableEarlyStoppingHook',
            monitor='tiny/error',
            rule='less',
            min_delta=100,
            patience=patience,
        ),
    )


def validations(runner: object) -> list[int]:
    seen = Validations()
    runner.register_hook(seen)
    runner.train()
    return seen.seen


@pytest.mark.parametrize('killed_at', [9, 14])
def test_it_counts_on(killed_at, tmp_path):
    settings = dict(validate=True, more=stopping(2))
    assert validations(runner_of(tmp_path / 'whole', **settings)) == [6, 12, 18]
    runner = runner_of(tmp_path / 'run', **settings)
    runner.register_hook(Kill(killed_at))
    with pytest.raises(Killed):
        runner.train()
    resumed = runner_of(tmp_path / 'run', resume=True, **settings)
    # the checkpoint is older than the validation after it, which is made up
    assert validations(resumed)[-1] == 18 and resumed.iter == 18


def test_what_was_ended_goes_on_with_more_patience_only(tmp_path):
    settings = dict(validate=True)
    assert validations(runner_of(tmp_path, more=stopping(1), **settings)) == [6, 12]
    again = runner_of(tmp_path, resume=True, more=stopping(1), **settings)
    assert validations(again) == [] and again.iter == 12
    patient = runner_of(tmp_path, resume=True, more=stopping(2), **settings)
    assert validations(patient) == [18] and patient.iter == 18


def test_metric_that_no_validation_has_is_told_and_stops_nothing(tmp_path, monkeypatch):
    hook = dict(stopping(1)[0], monitor='tiny/eror')
    runner = runner_of(tmp_path, validate=True, more=(hook,))
    told = []
    monkeypatch.setattr(runner.logger, 'warning', told.append)
    assert validations(runner) == [6, 12, 18, 24]
    assert told == ['There is no early stopping by tiny/eror: this validation has tiny/error.'] * 4


@pytest.mark.parametrize('state', [3, {'tiny/error': 'x'}, {'tiny/error': {'best_score': 'a'}}])
def test_states_of_strange_files_are_left_alone(state, tmp_path):
    runner = runner_of(tmp_path, validate=True, more=stopping(5))
    runner.message_hub.update_info('early_stopping', state)
    assert validations(runner) == [6, 12, 18, 24]
