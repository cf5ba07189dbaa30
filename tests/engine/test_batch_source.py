"""A killed loading process is replaced, and its batches are made again exactly."""

import os
import signal
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler, get_worker_info

from attnpool_backbones.engine.batch_source import BatchSource, LoadingError
from tests.engine.test_stopping import assert_same, runner_of, state
from tests.engine.tiny_run import make_config, make_runner

HOOK = dict(type='attnpool_backbones.RandomStateHook')


class KillWorker(Hook):
    """Kills a loading process between two iterations, or lets one kill itself while waited for.

    Args:
        iterations: After how many iterations.
    """

    def __init__(self, iterations: tuple) -> None:
        self.iterations = iterations
        self.killed = 0

    def after_train_iter(self, runner: object, batch_idx: int, **_: object) -> None:
        if runner.iter + 1 in self.iterations:
            workers = runner.train_loop.batches._iterator._workers
            os.kill(workers[runner.iter % len(workers)].pid, signal.SIGKILL)
            self.killed += 1


SETTINGS = {
    'epochs': dict(workers=2),
    'one worker': dict(workers=1),
    'persistent': dict(workers=2, persistent=True),
    'iterations': dict(workers=2, by_epoch=False),
}


@pytest.mark.parametrize('name', SETTINGS)
def test_training_is_the_same(name, tmp_path):
    states = []
    for kills in ((), (2, 9, 10)):
        cfg = make_config(tmp_path / str(len(kills)), hooks=(HOOK,), **SETTINGS[name])
        runner = make_runner('source', cfg)
        killing = KillWorker(kills)
        runner.register_hook(killing)
        runner.train()
        assert killing.killed == len(kills)
        states.append(state(runner))
    assert_same(*states)


class KillInValidation(Hook):
    """Kills a loading process of every validation."""

    def __init__(self) -> None:
        self.killed = 0

    def after_val_iter(self, runner: object, batch_idx: int, **_: object) -> None:
        if batch_idx == 1:
            os.kill(runner.val_dataloader._iterator._workers[0].pid, signal.SIGKILL)
            self.killed += 1


def test_validation_is_the_same(tmp_path):
    scores = []
    for kills in (False, True):
        runner = runner_of(tmp_path / str(kills), validate=True, workers=2)
        killing = KillInValidation()
        if kills:
            runner.register_hook(killing)
        runner.train()
        assert killing.killed == 4 * kills
        scores.append(len(runner.message_hub.get_scalar('val/tiny/error').data[0]))
    assert scores == [4, 4]


class Numbers(Dataset):
    """Numbers; a loading process dies once where ``fatal`` is, or always."""

    def __init__(self, mark: Path, fatal: int | None = None, always: bool = False) -> None:
        self.mark = mark
        self.fatal = fatal
        self.always = always

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == self.fatal and get_worker_info() is not None:
            if self.always or not self.mark.exists():
                self.mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return torch.tensor(index)


class Buckets(BatchSampler):
    """Batches of even and of odd numbers, which it collects in itself, as mmdet's sampler does."""

    def __init__(self, sampler: Sampler, batch_size: int) -> None:
        super().__init__(sampler, batch_size, drop_last=False)
        self.buckets: list[list[int]] = [[], []]

    def __iter__(self):
        for index in self.sampler:
            bucket = self.buckets[index % 3 == 0]
            bucket.append(index)
            if len(bucket) == self.batch_size:
                yield bucket[:]
                del bucket[:]
        for bucket in self.buckets:
            if bucket:
                yield bucket[:]
            del bucket[:]


@pytest.mark.parametrize('skip', [0, 2])
def test_killed_while_waited_for(skip, tmp_path):
    started = []
    expected = [batch.tolist() for batch in DataLoader(Numbers(tmp_path), batch_sampler=buckets())]
    loader = DataLoader(
        Numbers(tmp_path / 'mark', fatal=11), batch_sampler=buckets(), num_workers=2
    )
    source = BatchSource(loader, started.append)
    batches = [batch.tolist() for batch in source(skip, 100 + skip)]
    assert batches == expected[skip:]
    assert len(started) == 2 and started[0] == 100 + skip < started[1]
    assert signal.getsignal(signal.SIGCHLD) != source._on_child
    # who iterates over the dataloader itself gets all of them
    assert [batch.tolist() for batch in loader] == expected


def buckets() -> Buckets:
    return Buckets(range(20), 3)


def test_killed_again_and_again(tmp_path):
    loader = DataLoader(Numbers(tmp_path / 'm', fatal=3, always=True), 2, num_workers=1)
    source = BatchSource(loader, lambda number: None)
    with pytest.raises(LoadingError, match='killed 4 times .* iteration [12] was made .*memory'):
        list(source(0, 0))


def test_errors_of_data_are_told_as_they_are(tmp_path):
    class Broken(Numbers):
        def __getitem__(self, index: int) -> None:
            raise ValueError('no image')

    source = BatchSource(DataLoader(Broken(tmp_path), 2, num_workers=1), lambda number: None)
    with pytest.raises(ValueError, match='no image'):
        list(source(0, 0))


def test_needs_batches(tmp_path):
    with pytest.raises(ValueError, match='batch_size'):
        BatchSource(DataLoader(Numbers(tmp_path), batch_size=None), lambda number: None)
