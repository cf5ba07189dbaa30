"""Checkpoints survive a kill at any moment, and keep what mmengine's hook offers."""

import errno
import hashlib
import os
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook

from attnpool_backbones import atomic_files
from attnpool_backbones.atomic_files import remove_stale_files, write_atomically
from attnpool_backbones.checkpoints.reading import read_content
from attnpool_backbones.engine.saving_errors import NonFiniteWeights, SavingError
from attnpool_backbones.launching.latest_checkpoint import find_resumable_checkpoint
from tests.engine.tiny_run import make_config, make_runner


class Kill(BaseException):
    """Not an Exception: nothing may handle it, like a signal."""


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file() and path.suffix != '.py')


def run(folder: Path, **checkpoint: object) -> object:
    runner = make_runner('checkpoint', make_config(folder, checkpoint=checkpoint))
    runner.train()
    return runner


def test_same_files_as_mmengine(tmp_path):
    run(tmp_path / 'ours', max_keep_ckpts=2)
    run(tmp_path / 'theirs', max_keep_ckpts=2, type='CheckpointHook')
    assert (
        files(tmp_path / 'ours')
        == files(tmp_path / 'theirs')
        == ['epoch_3.pth', 'epoch_4.pth', 'last_checkpoint']
    )
    last = (tmp_path / 'ours' / 'last_checkpoint').read_text()
    assert last == str(tmp_path / 'ours' / 'epoch_4.pth')
    mode = (tmp_path / 'theirs' / 'epoch_4.pth').stat().st_mode
    assert (tmp_path / 'ours' / 'epoch_4.pth').stat().st_mode == mode


def test_killed_while_writing(tmp_path, monkeypatch):
    replaced = []
    replace = os.replace

    def fail_at_third_checkpoint(source: str, target: Path) -> None:
        replaced.append(Path(target).name)
        if replaced.count('epoch_3.pth'):
            raise Kill
        replace(source, target)

    monkeypatch.setattr(atomic_files.os, 'replace', fail_at_third_checkpoint)
    with pytest.raises(Kill):
        run(tmp_path, max_keep_ckpts=1)
    # the second is still there and named, and nothing half-written is left
    assert files(tmp_path) == ['epoch_2.pth', 'last_checkpoint']
    assert find_resumable_checkpoint(str(tmp_path)) == str(tmp_path / 'epoch_2.pth')


@pytest.mark.parametrize('name', ['epoch_3.pth', 'last_checkpoint'])
def test_every_file_waits_for_space(name, tmp_path, monkeypatch, capsys):
    full, naps = [], []
    replace = os.replace

    def full_once(source: str, target: Path) -> None:
        if Path(target).name == name and not full:
            full.append(target)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(atomic_files.os, 'replace', full_once)
    monkeypatch.setattr(atomic_files.time, 'sleep', naps.append)
    run(tmp_path, wait_for_space=True)
    assert full and naps and f'waiting: {tmp_path / name} ' in capsys.readouterr().out
    last = (tmp_path / 'last_checkpoint').read_text()
    assert last == str(tmp_path / 'epoch_4.pth')


def test_old_checkpoint_goes_after_the_new_one_came(tmp_path, monkeypatch):
    remove = atomic_files.AtomicLocalBackend.remove
    present = []

    def record(backend: object, path: str) -> None:
        present.append(files(tmp_path))
        remove(backend, path)

    monkeypatch.setattr(atomic_files.AtomicLocalBackend, 'remove', record)
    run(tmp_path, max_keep_ckpts=1)
    assert present[0] == ['.writer', 'epoch_1.pth', 'epoch_2.pth', 'last_checkpoint']
    assert len(present) == 3


class TakeAway(Hook):
    """Moves a folder away in the second epoch, as a disk that is unmounted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def before_train_epoch(self, runner: object) -> None:
        if runner.epoch == 1:
            self.folder.rename(self.folder.with_name('away'))


def test_a_folder_of_checkpoints_that_vanishes_is_not_made_anew(tmp_path):
    cfg = make_config(tmp_path / 'run', checkpoint=dict(out_dir=str(tmp_path / 'disk')))
    runner = make_runner('checkpoint', cfg)
    runner.register_hook(TakeAway(tmp_path / 'disk' / 'run'))
    with pytest.raises(SavingError, match=f'saved in {tmp_path}/disk/run and .*the folder is gone'):
        runner.train()
    assert files(tmp_path / 'disk' / 'away') == ['epoch_1.pth']
    assert not (tmp_path / 'disk' / 'run').exists()


def leftover(host: str | None = None, pid: int = 2**22 - 1, name: str = 'epoch_1.pth') -> str:
    return f'.{name}.{host or atomic_files._host()}-{pid}-0123abcd.attnpool-part'


def test_only_own_leftovers_are_removed(tmp_path):
    gone = [leftover(), leftover(name='epoch_12.pth'), leftover('other-machine')]
    kept = [
        leftover(pid=os.getpid()),
        leftover('other-machine', name='fresh'),
        '.epoch_1.pth.abcd.part',
        '.epoch_1.pth.1234',
        'notes.part',
        '.attnpool-part',
        leftover()[1:],
    ]
    for name in gone + kept:
        (tmp_path / name).write_bytes(b'half')
    os.utime(tmp_path / gone[2], (1, 1))
    run(tmp_path)
    assert not [name for name in gone if (tmp_path / name).exists()]
    assert not [name for name in kept if not (tmp_path / name).exists()]
    assert remove_stale_files(tmp_path / 'missing') == []


def test_write_atomically_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / 'folder' / 'file'
    write_atomically(b'old', path)

    def fail(*_: object) -> None:
        raise OSError('disk full')

    monkeypatch.setattr(atomic_files.os, 'fsync', fail)
    with pytest.raises(OSError, match='disk full'):
        write_atomically(b'new', path)
    assert path.read_bytes() == b'old' and files(path.parent) == ['file']


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    class Spoil(Hook):
        def after_train_iter(self, runner: object, batch_idx: int, **_: object) -> None:
            if runner.iter == 8:
                runner.model.layer.bias.data.fill_(torch.nan)

    runner = make_runner('checkpoint', make_config(tmp_path))
    runner.register_hook(Spoil())
    with pytest.raises(NonFiniteWeights, match='NaN in layer.*good state is .*epoch_1.pth'):
        runner.train()
    assert files(tmp_path) == ['epoch_1.pth', 'last_checkpoint']


def test_published_keys(tmp_path):
    run(tmp_path, published_keys=['meta', 'state_dict'])
    (published,) = tmp_path.glob('epoch_4-*.pth')
    digest = hashlib.sha256(published.read_bytes()).hexdigest()
    assert published.stem == f'epoch_4-{digest[:8]}'
    content = read_content(str(published))
    assert set(content) == {'meta', 'state_dict'}
    assert content['meta'] == read_content(str(tmp_path / 'epoch_4.pth'))['meta']


@pytest.mark.parametrize('save_best', ['score', ['score', 'other']])
def test_save_best(save_best, tmp_path, monkeypatch):
    hook_args = dict(save_best=save_best, rule='greater', max_keep_ckpts=1)
    runner = make_runner('checkpoint', make_config(tmp_path, checkpoint=hook_args))
    hook = next(hook for hook in runner.hooks if type(hook).__name__ == 'SafeCheckpointHook')
    remove = atomic_files.AtomicLocalBackend.remove
    best_at_removal = []

    def record(backend: object, path: str) -> None:
        best_at_removal.append(len(list(tmp_path.glob('best_score_*'))))
        remove(backend, path)

    runner.train()
    monkeypatch.setattr(atomic_files.AtomicLocalBackend, 'remove', record)
    for score in (0.1, 0.3, 0.2):
        runner.train_loop._epoch += 1
        hook.after_val_epoch(runner, dict(score=score, other=score))
    expected = ['best_score_epoch_6.pth', 'epoch_6.pth', 'last_checkpoint']
    if isinstance(save_best, list):
        expected.insert(0, 'best_other_epoch_6.pth')
    assert files(tmp_path) == expected
    # whenever a file went, a best one was in place
    assert best_at_removal and min(best_at_removal) >= 1
    assert 'optimizer' not in read_content(str(tmp_path / 'best_score_epoch_6.pth'))


@pytest.mark.parametrize('save_best', ['scoer', ['score', 'scoer']])
def test_metric_that_no_validation_has_is_told_and_passed_over(save_best, tmp_path, monkeypatch):
    hook_args = dict(save_best=save_best, rule='greater')
    runner = make_runner('checkpoint', make_config(tmp_path, checkpoint=hook_args))
    runner.train()
    told = []
    monkeypatch.setattr(runner.logger, 'warning', told.append)
    hook = next(hook for hook in runner.hooks if type(hook).__name__ == 'SafeCheckpointHook')
    hook.after_val_epoch(runner, dict(score=0.5, other=0.1))
    assert 'by scoer: this validation has score, other.' in told[0]
    best = ['best_score_epoch_4.pth'] if isinstance(save_best, list) else []
    assert [path.name for path in tmp_path.glob('best_*')] == best


def test_best_that_is_written_again_is_kept(tmp_path):
    runner = make_runner(
        'checkpoint', make_config(tmp_path, checkpoint=dict(save_best='score', rule='greater'))
    )
    runner.train()
    hook = next(hook for hook in runner.hooks if type(hook).__name__ == 'SafeCheckpointHook')
    for score in (0.1, 0.2):
        hook.after_val_epoch(runner, dict(score=score))
    assert (tmp_path / 'best_score_epoch_4.pth').exists()
