"""Signals stop a training where it can go on exactly; validations that were left are made up."""

import os
import re
import signal
import sys
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook

from attnpool_backbones.atomic_files import AtomicLocalBackend
from attnpool_backbones.checkpoints.reading import read_content
from attnpool_backbones.engine.resumable_loop import VALIDATED
from attnpool_backbones.launching.latest_checkpoint import find_resumable_checkpoint, stored_seed
from attnpool_backbones.launching.resuming import choose_checkpoint_to_resume
from attnpool_backbones.stop_signals import STOP_SIGNALS, Stopped, StopSignals
from tests.engine.tiny_run import (
    BATCH,
    EPOCH,
    Killed,
    KillInTraining,
    add_validation,
    make_config,
    make_runner,
)

HOOK = dict(type='attnpool_backbones.RandomStateHook')


class Send(Hook):
    """Sends signals to its own process.

    Args:
        iteration: After how many iterations.
        number: The signal.
        validating: In the validation after that iteration. Default: False.
    """

    def __init__(self, iteration: int, number: int, validating: bool = False) -> None:
        self.iteration = iteration
        self.number = number
        self.validating = validating

    def after_train_iter(self, runner: object, batch_idx: int, **_: object) -> None:
        if not self.validating and runner.iter + 1 == self.iteration:
            os.kill(os.getpid(), self.number)

    def before_val_epoch(self, runner: object) -> None:
        if self.validating and runner.iter == self.iteration:
            os.kill(os.getpid(), self.number)


class Validations(Hook):
    """Records after which iterations there was a whole validation."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def after_val_epoch(self, runner: object, metrics: dict | None = None) -> None:
        if metrics is not None:
            self.seen.append(runner.iter)


def runner_of(folder: Path, resume: bool | str = False, validate: bool = False,
              accumulate: int = 1, wrapper: str = 'OptimWrapper', more: tuple = (),
              schedule: dict | None = None, **settings: object):  # fmt: skip
    cfg = make_config(folder, hooks=(HOOK, *more), **settings)
    if schedule is not None:
        cfg.param_scheduler = [schedule]
    cfg.optim_wrapper.accumulative_counts = accumulate
    cfg.optim_wrapper.type = wrapper
    if validate:
        add_validation(cfg)
    if isinstance(resume, str):
        choose_checkpoint_to_resume(cfg, resume)
    elif resume:
        cfg.resume, cfg.load_from = True, find_resumable_checkpoint(str(folder))
        cfg.randomness.seed = stored_seed(cfg.load_from)
    return make_runner('stopping', cfg)


def state(runner: object) -> dict:
    losses = runner.message_hub.get_scalar('train/loss').data[0]
    rates = runner.message_hub.get_scalar('train/lr').data[0]
    weights = {name: value.clone() for name, value in runner.model.state_dict().items()}
    return dict(weights, losses=torch.tensor(losses), rates=torch.tensor(rates))


def assert_same(one: dict, two: dict) -> None:
    assert one.keys() == two.keys()
    assert not [name for name in one if not torch.equal(one[name], two[name])]


EMA = dict(type='EMAHook')
SETTINGS = {
    'epochs': (9, 9, dict()),
    'end of an epoch': (12, 12, dict()),
    'iterations': (9, 9, dict(by_epoch=False)),
    'average': (9, 9, dict(more=(EMA,))),
    'accumulated': (9, 10, dict(accumulate=5)),
    'validated': (9, 9, dict(validate=True)),
}


CASES = [(name, signal.SIGTERM) for name in SETTINGS] + [
    (name, number)
    for name in ('epochs', 'iterations')
    for number in STOP_SIGNALS
    if number != signal.SIGTERM
]


@pytest.mark.parametrize(('name', 'number'), CASES)
def test_stopped_and_resumed_equals_uninterrupted(name, number, tmp_path, capsys):
    sent, stopped, settings = SETTINGS[name]
    handlers = [signal.getsignal(s) for s in STOP_SIGNALS]
    runner = runner_of(tmp_path, **settings)
    runner.register_hook(Send(sent, number))
    with pytest.raises(Stopped) as stop:
        runner.train()
    assert stop.value.code == 128 + number
    assert [signal.getsignal(s) for s in STOP_SIGNALS] == handlers
    saved = tmp_path / f'interim_iter_{stopped}.pth'
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert str(saved) in told and signal.Signals(number).name in told and '--resume auto' in told
    assert find_resumable_checkpoint(str(tmp_path)) == str(saved)
    resumed = runner_of(tmp_path, resume=True, **settings)
    resumed.train()
    whole = runner_of(tmp_path / 'whole', **settings)
    whole.train()
    assert_same(state(resumed), state(whole))
    assert not list(tmp_path.glob('interim*'))


SCHEDULES = {
    'one cycle': dict(type='OneCycleLR', eta_max=0.1, total_steps=4 * EPOCH, by_epoch=False),
    'linear cycle': dict(
        type='OneCycleLR', eta_max=0.1, total_steps=4, anneal_strategy='linear',
        convert_to_iter_based=True,
    ),
    'milestones': dict(type='MultiStepLR', milestones=[1, 2]),
    'restarts': dict(
        type='CosineRestartLR', periods=[7, 20], restart_weights=[1, 0.5], eta_min=0.0,
        by_epoch=False,
    ),
    'plateau': dict(type='ReduceOnPlateauLR', monitor='tiny/error', rule='less', patience=0),
    'momentum': dict(type='CosineAnnealingMomentum', T_max=4, eta_min=0.5),
    'cosine': dict(type='CosineAnnealingLR', T_max=4, convert_to_iter_based=True),
}  # fmt: skip


@pytest.mark.parametrize('of_before', [False, True])
@pytest.mark.parametrize('name', SCHEDULES)
def test_schedules_go_on(name, of_before, tmp_path):
    """Files of before have all that a schedule stores, functions too."""
    settings = dict(validate=True, schedule=SCHEDULES[name])
    runner = runner_of(tmp_path, **settings)
    runner.register_hook(Send(9, signal.SIGTERM))
    with pytest.raises(Stopped):
        runner.train()
    if of_before:
        saved = tmp_path / 'interim_iter_9.pth'
        content = torch.load(saved, weights_only=False)
        content['param_schedulers'] = [each.state_dict() for each in runner.param_schedulers]
        torch.save(content, saved)
    resumed = runner_of(tmp_path, resume='auto', **settings)
    resumed.train()
    whole = runner_of(tmp_path / 'whole', **settings)
    whole.train()
    assert_same(state(resumed), state(whole))


@pytest.mark.parametrize(('name', 'told'), [('cosine', True), ('milestones', False)])
def test_a_schedule_in_iterations_of_another_batch_size_is_told(name, told, tmp_path, capsys):
    check = (dict(type='attnpool_backbones.ResumeCheckHook'),)
    runner = runner_of(tmp_path, schedule=SCHEDULES[name], more=check)
    runner.register_hook(Send(9, signal.SIGTERM))
    with pytest.raises(Stopped):
        runner.train()
    cfg = make_config(tmp_path, hooks=(HOOK, *check))
    cfg.param_scheduler, cfg.train_dataloader.batch_size = [SCHEDULES[name]], BATCH // 2
    choose_checkpoint_to_resume(cfg, 'auto')
    capsys.readouterr()
    make_runner('stopping', cfg).train()
    text = 'its param_schedulers[0].T_max is 24, here 48: the schedule'
    assert (text in ''.join(capsys.readouterr())) == told


@pytest.mark.parametrize('of_before', [False, True])
def test_a_file_of_mmengines_loop_is_gone_on_with_at_the_next_epoch(of_before, tmp_path):
    """Files of before told that all batches of the next epoch were done."""
    cfg = make_config(tmp_path, hooks=(HOOK,))
    cfg.train_cfg.update(type='EpochBasedTrainLoop', max_epochs=2)
    make_runner('stopping', cfg).train()
    if of_before:
        checkpoint = read_content(str(tmp_path / 'epoch_2.pth'))
        checkpoint['message_hub']['runtime_info']['batches_done'] = [EPOCH, EPOCH]
        torch.save(checkpoint, tmp_path / 'epoch_2.pth')
    resumed = runner_of(tmp_path, resume=True)
    resumed.train()
    whole = runner_of(tmp_path / 'whole')
    whole.train()
    assert_same(state(resumed), state(whole))


def test_no_epoch_is_trained_twice_after_the_batch_size_was_halved(tmp_path):
    """The file is written in the last iteration of the third epoch, as by count after two."""
    each = dict(by_epoch=False, interval=EPOCH, max_keep_ckpts=1)
    for batch_size, killed in ((2 * BATCH, EPOCH + 1), (BATCH, 2 * EPOCH + 1)):
        cfg = make_config(tmp_path, hooks=(HOOK,), checkpoint=each)
        cfg.train_dataloader.batch_size = batch_size
        choose_checkpoint_to_resume(cfg, 'auto')
        runner = make_runner('stopping', cfg)
        runner.register_hook(KillInTraining(killed))
        with pytest.raises(Killed):
            runner.train()
    resumed = runner_of(tmp_path, resume=True, checkpoint=each)
    resumed.train()
    # two short epochs, two long ones
    assert (resumed.epoch, resumed.iter) == (4, EPOCH + 2 * EPOCH)


def test_a_run_that_mmengines_loop_went_on_with_does_not_pass_over_batches(tmp_path):
    runner = runner_of(tmp_path)
    runner.register_hook(Send(9, signal.SIGTERM))
    with pytest.raises(Stopped):
        runner.train()
    cfg = make_config(tmp_path, hooks=(HOOK,))
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook')
    cfg.train_cfg.update(type='EpochBasedTrainLoop', max_epochs=2)
    cfg.resume, cfg.load_from = True, str(tmp_path / 'interim_iter_9.pth')
    make_runner('stopping', cfg).train()
    resumed = runner_of(tmp_path, resume=True)
    resumed.train()
    # it had begun the second epoch anew
    assert (resumed.epoch, resumed.iter) == (4, 9 + 3 * EPOCH)


def test_a_finished_training_is_not_saved_again(tmp_path):
    runner_of(tmp_path, validate=True).train()
    saved = {path: path.stat() for path in tmp_path.glob('*.pth')}
    resumed = runner_of(tmp_path, resume='auto', validate=True)
    resumed.train()
    assert resumed.iter == 4 * EPOCH
    after = {path: path.stat() for path in tmp_path.glob('*.pth')}
    assert {p: (s.st_ino, s.st_mtime_ns) for p, s in after.items()} == {
        p: (s.st_ino, s.st_mtime_ns) for p, s in saved.items()
    }


def test_a_run_resumed_in_its_last_epoch_leaves_the_whole_dataloader(tmp_path):
    runner = runner_of(tmp_path)
    runner.register_hook(Send(3 * EPOCH + 4, signal.SIGTERM))
    with pytest.raises(Stopped):
        runner.train()
    resumed = runner_of(tmp_path, resume=True)
    resumed.train()
    assert len(list(resumed.train_dataloader)) == EPOCH


@pytest.mark.parametrize('by_epoch', [True, False])
@pytest.mark.parametrize('average', [(), (EMA,)])
def test_validation_that_was_left_is_made_up(by_epoch, average, tmp_path):
    settings = dict(by_epoch=by_epoch, validate=True, more=average)
    runner = runner_of(tmp_path, **settings)
    runner.register_hook(Send(12, signal.SIGTERM, validating=True))
    with pytest.raises(Stopped):
        runner.train()
    resumed, whole = runner_of(tmp_path, resume=True, **settings), None
    seen = Validations()
    resumed.register_hook(seen)
    resumed.train()
    assert seen.seen == [12, 18, 24]
    whole = runner_of(tmp_path / 'whole', **settings)
    whole.train()
    assert_same(state(resumed), state(whole))
    for folder in (tmp_path, tmp_path / 'whole'):
        assert len(list(folder.glob('best_*'))) == 1
    best = [run.message_hub.get_info('best_score') for run in (resumed, whole)]
    assert best[0] == best[1]


def test_left_again_in_the_validation_that_is_made_up(tmp_path, capsys):
    """Nothing is saved, as nothing was trained: the message names the checkpoint of before."""
    runner = runner_of(tmp_path, validate=True)
    runner.register_hook(KillInValidation(12))
    with pytest.raises(Killed):
        runner.train()
    again = runner_of(tmp_path, resume=True, validate=True)
    again.register_hook(Send(12, signal.SIGTERM, validating=True))
    with pytest.raises(Stopped):
        again.train()
    told = capsys.readouterr().err
    assert f'the state after iteration 12 is in {tmp_path / "epoch_2.pth"}.' in told


NAMED = dict(validate=True, more=(dict(type='attnpool_backbones.WorkFolderHook'),))


@pytest.mark.parametrize('place', ['here', 'elsewhere'])
def test_left_in_the_validation_that_is_made_up_after_another_run(place, tmp_path, capsys):
    """``auto`` goes on from what the message names, not from what another run left there."""
    folder = tmp_path / 'run'
    runner_of(folder, **NAMED).train()
    start = folder if place == 'here' else tmp_path / 'other'
    start = start / 'epoch_2.pth'
    if place == 'elsewhere':
        runner_of(start.parent, **NAMED).train()
    change_validated(start)
    left = (folder / 'epoch_2.pth').read_bytes()
    for resume in (str(start), 'auto'):
        again = runner_of(folder, resume=resume, **NAMED)
        again.register_hook(Send(12, signal.SIGTERM, validating=True))
        with pytest.raises(Stopped):
            again.train()
        saved = find_resumable_checkpoint(str(folder))
        assert f'the state after iteration 12 is in {saved}.' in capsys.readouterr().err
        assert saved == str(folder / 'interim_iter_12.pth')
    assert (folder / 'epoch_2.pth').read_bytes() == left


def change_validated(path: Path) -> None:
    """Makes a checkpoint one that was saved before its validation, as a kill leaves it."""
    checkpoint = read_content(str(path))
    checkpoint['message_hub']['runtime_info'][VALIDATED] = 6
    torch.save(checkpoint, path)


@pytest.mark.parametrize('of_before', [False, True])
def test_a_validation_is_not_made_again(of_before, tmp_path):
    runner_of(tmp_path, validate=True).train()
    if of_before:
        checkpoint = read_content(str(tmp_path / 'epoch_4.pth'))
        info = checkpoint['message_hub']['runtime_info']
        info['validated_iter'] = info.pop(VALIDATED)
        torch.save(checkpoint, tmp_path / 'epoch_4.pth')
    again = runner_of(tmp_path, validate=True, resume=True)
    again.register_hook(validations := Validations())
    again.train()
    assert validations.seen == []


def test_the_log_of_a_validation_has_scores_alone(tmp_path):
    runner = runner_of(tmp_path, validate=True)
    runner.train()
    _, line = runner.log_processor.get_log_after_epoch(runner, EPOCH, 'val')
    assert re.findall(r'(\S+): ', line) == ['tiny/error', 'data_time', 'time']


@pytest.mark.parametrize('validating', [False, True])
@pytest.mark.parametrize('saving', [None, dict(type='CheckpointHook')])
def test_signals_stay_what_they_were_where_no_hook_would_save(saving, validating, tmp_path, capsys):
    cfg = make_config(tmp_path, hooks=(HOOK,))
    add_validation(cfg)
    cfg.default_hooks.checkpoint = saving
    runner = make_runner('stopping', cfg)
    runner.register_hook(Send(12, signal.SIGINT, validating))
    with pytest.raises(KeyboardInterrupt):
        runner.train()
    assert runner.iter == (12 if validating else 11)
    assert 'SIGINT' not in capsys.readouterr().err


class Depths(Hook):
    """Records how many objects stand for the dataloader of each validation."""

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.seen: list[int] = []

    def before_val_epoch(self, runner: object) -> None:
        loader, depth = runner.val_loop.dataloader, 0
        while 'loader' in vars(loader):
            loader, depth = loader.loader, depth + 1
        self.seen.append(depth)


@pytest.mark.parametrize('by_epoch', [True, False])
@pytest.mark.parametrize('skipping', [(), (dict(type='attnpool_backbones.SkipBadDataHook'),)])
def test_every_validation_has_the_same_batches(skipping, by_epoch, tmp_path):
    runner = runner_of(tmp_path, validate=True, by_epoch=by_epoch, more=skipping)
    depths = Depths()
    runner.register_hook(depths)
    runner.train()
    assert depths.seen == [2 + len(skipping)] * 4


class KillInValidation(Hook):
    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def after_val_iter(self, runner: object, batch_idx: int, **_: object) -> None:
        if runner.iter == self.iteration:
            raise Killed


# an epoch has six iterations
ACCUMULATED = {
    'epochs': (9, 4, dict()),
    'average': (9, 4, dict(more=(EMA,))),
    'bfloat16': (9, 4, dict(wrapper='attnpool_backbones.CPUAmpOptimWrapper')),
    'iterations': (9, 5, dict(by_epoch=False, checkpoint=dict(interval=2))),
    'last update': (24, 5, dict(by_epoch=False, checkpoint=dict(interval=1))),
    'between updates': (9, 3, dict()),
}


@pytest.mark.parametrize('name', ACCUMULATED)
def test_killed_in_an_accumulation_and_resumed_equals_uninterrupted(name, tmp_path):
    killed, accumulate, settings = ACCUMULATED[name]
    settings = dict(settings, accumulate=accumulate)
    runner = runner_of(tmp_path, **settings)
    runner.register_hook(KillInTraining(killed))
    with pytest.raises(Killed):
        runner.train()
    resumed = runner_of(tmp_path, resume=True, **settings)
    resumed.train()
    whole = runner_of(tmp_path / 'whole', **settings)
    whole.train()
    assert_same(state(resumed), state(whole))


@pytest.mark.parametrize('accumulate', [1, 2, 3, 5])
def test_gradients_are_not_put_into_another_accumulation(accumulate, tmp_path, capsys):
    runner = runner_of(tmp_path, accumulate=4)
    runner.register_hook(KillInTraining(9))
    with pytest.raises(Killed):
        runner.train()
    resumed = runner_of(tmp_path, resume=True, accumulate=accumulate)
    resumed.register_hook(KillInTraining(7))
    with pytest.raises(Killed):
        resumed.train()
    assert all(parameter.grad is None for parameter in resumed.model.parameters())
    assert f'accumulative_counts was 4, now it is {accumulate}' in capsys.readouterr().out


@pytest.mark.parametrize('of_before', [False, True])
@pytest.mark.parametrize(
    ('before', 'after'),
    [
        ('ScaledOptimWrapper', 'OptimWrapper'),
        ('OptimWrapper', 'ScaledOptimWrapper'),
        ('ScaledOptimWrapper', 'ScaledOptimWrapper'),
    ],
)
def test_gradients_have_the_scale_of_the_resumed_run(before, after, of_before, tmp_path):
    """Files of before do not tell in how many parts an update was made."""
    runner = runner_of(tmp_path, accumulate=4, wrapper=before)
    runner.register_hook(KillInTraining(9))
    with pytest.raises(Killed):
        runner.train()
    if of_before:
        checkpoint = read_content(str(tmp_path / 'epoch_1.pth'))
        del checkpoint['accumulative_counts']
        torch.save(checkpoint, tmp_path / 'epoch_1.pth')
    resumed = runner_of(tmp_path, resume=True, accumulate=4, wrapper=after)
    resumed.train()
    whole = runner_of(tmp_path / 'whole', accumulate=4)
    whole.train()
    assert_same(state(resumed), state(whole))


@pytest.mark.parametrize('by_epoch', [True, False])
@pytest.mark.parametrize('iteration', [12, 24])
def test_validation_that_a_kill_cut_off_is_made_up(iteration, by_epoch, tmp_path):
    settings = dict(by_epoch=by_epoch, validate=True)
    runner = runner_of(tmp_path, **settings)
    runner.register_hook(KillInValidation(iteration))
    with pytest.raises(Killed):
        runner.train()
    seen = Validations()
    for _ in range(2):  # the second time, everything has been done
        resumed = runner_of(tmp_path, resume=True, **settings)
        resumed.register_hook(seen)
        resumed.train()
    assert seen.seen == [n for n in (12, 18, 24) if n >= iteration]
    whole = runner_of(tmp_path / 'whole', **settings)
    whole.train()
    assert_same_files(tmp_path, tmp_path / 'whole')


def assert_same_files(one: Path, two: Path) -> None:
    names = [sorted(path.name for path in folder.glob('*.pth')) for folder in (one, two)]
    assert names[0] == names[1]


@pytest.mark.parametrize('kill', range(1, 6))
def test_what_a_kill_left_over_is_removed(kill, tmp_path, monkeypatch):
    """Between a checkpoint and the removal of its predecessor, regular or best."""
    settings = dict(validate=True, checkpoint=dict(max_keep_ckpts=1))
    remove = AtomicLocalBackend.remove
    removals = []

    def kill_at_removal(backend: object, path: str) -> None:
        removals.append(path)
        if len(removals) == kill:
            raise Killed
        remove(backend, path)

    monkeypatch.setattr(AtomicLocalBackend, 'remove', kill_at_removal)
    with pytest.raises(Killed):
        runner_of(tmp_path, **settings).train()
    left = [path.name for path in tmp_path.glob('*.pth')]
    monkeypatch.setattr(AtomicLocalBackend, 'remove', remove)
    runner_of(tmp_path, resume=True, **settings).train()
    runner_of(tmp_path / 'whole', **settings).train()
    assert_same_files(tmp_path, tmp_path / 'whole')
    assert len(left) >= 2


def test_saves_by_time(tmp_path):
    present = []

    class Look(Hook):
        def before_train_iter(self, runner: object, batch_idx: int, **_: object) -> None:
            present.append([path.name for path in tmp_path.glob('interim*')])

    runner = runner_of(tmp_path, checkpoint=dict(every='0.0001s', interval=2))
    runner.register_hook(Look())
    runner.train()
    assert present[:4] == [[], *([f'interim_iter_{n}.pth'] for n in (1, 2, 3))]
    assert present[13] == [f'interim_iter_{13}.pth']
    assert not list(tmp_path.glob('interim*'))


def test_a_terminal_that_is_closed_does_not_end_a_training_unsaved(monkeypatch):
    # writing to it fails from then on, as to a full disk
    with open('/dev/full', 'w') as full, StopSignals() as signals:
        monkeypatch.setattr(sys, '__stderr__', full)
        os.kill(os.getpid(), signal.SIGHUP)
        assert signals.received == signal.SIGHUP
