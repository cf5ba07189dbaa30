"""Real processes, killed, stopped and starved: what they had saved goes on exactly.

Each setting is compared with a training that nobody disturbed. The long form is slow; a short one
of each kind runs with the fast tests.
"""

import os
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from attnpool_backbones.checkpoints.reading import read_content
from attnpool_backbones.launching.latest_checkpoint import find_resumable_checkpoint
from attnpool_backbones.launching.processes import free_port
from attnpool_backbones.process_lifetime import is_running
from tests.engine.tiny_run import ITERS, make_config
from tests.faults.training import Training, children_of, end_all, train
from tests.patience import comes_true

SETTINGS = {
    'epochs': dict(workers=2, validate=True, checkpoint=dict(max_keep_ckpts=2)),
    'iterations': dict(workers=2, by_epoch=False, checkpoint=dict(max_keep_ckpts=1)),
}


@pytest.fixture(autouse=True)
def nothing_left():
    """No training outlives its test."""
    yield
    end_all()


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
    """Returns the end of a training with the given settings that nobody disturbs."""
    found: dict[str, tuple[str, list[str]]] = {}

    def reference(name: str, processes: int = 0) -> tuple[str, list[str]]:
        key = f'{name} {processes}'
        if key not in found:
            folder = tmp_path_factory.mktemp('undisturbed') / 'run'
            done = train(folder, processes=processes, **SETTINGS[name])
            found[key] = done.digest, checkpoints(folder)
        return found[key]

    yield reference


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix not in ('.py', ''))


def assert_clean(folder: Path) -> None:
    assert not [path.name for path in folder.iterdir() if path.name.startswith('.')]


def kill_and_resume(
    folder: Path, name: str, kills: list[float], reference: tuple, pause: float = 0.03
) -> int:
    """Kills a chain of trainings, each some seconds after it began to train or to save.

    Returns:
        How many were killed before they had come to their end.
    """
    killed = 0
    for kill in kills:
        training = Training(folder, pause=pause, slow_saving=0.15, **SETTINGS[name])
        try:
            training.wait_for('saving' if kill < 0.5 else 'iteration')
        except AssertionError:
            # there was nothing left to train
            assert training.end() == 0, training.output
            assert training.digest == reference[0]
            break
        time.sleep(kill)
        training.kill()
        assert training.process.returncode in (0, -signal.SIGKILL), training.output
        killed += training.process.returncode != 0
        assert bool(find_resumable_checkpoint(str(folder))) == any(folder.glob('*.pth'))
    done = train(folder, **SETTINGS[name])
    assert done.digest == reference[0]
    assert checkpoints(folder) == reference[1]
    assert_clean(folder)
    return killed


def test_killed_once(tmp_path, undisturbed):
    # iterations that last, so that a busy machine has not ended the training before its moment
    kills = kill_and_resume(tmp_path / 'run', 'epochs', [0.2], undisturbed('epochs'), pause=0.5)
    assert kills == 1


@pytest.mark.slow
@pytest.mark.parametrize('name', SETTINGS)
def test_killed_at_random_moments(name, tmp_path, undisturbed):
    """25 kills in the two settings, most of them while a checkpoint is written."""
    moments = random.Random(name)
    count = 13 if name == 'epochs' else 12
    killed = 0
    for chain in range(5):
        share = count // 5 + (chain < count % 5)
        # below half a second: after the beginning of saving
        kills = [
            moments.uniform(0, 0.45) if moments.random() < 0.7 else moments.uniform(0.5, 1.2)
            for _ in range(share)
        ]
        killed += kill_and_resume(tmp_path / f'run{chain}', name, kills, undisturbed(name))
    # a fast machine ends some before their moment
    assert killed >= count // 2


def stop_and_resume(
    folder: Path, name: str, number: int, reference: tuple, processes: int = 0
) -> None:
    settings = dict(SETTINGS[name], processes=processes)
    training = Training(folder, pause=0.1, **settings)
    training.wait_for('iteration 9')
    training.process.send_signal(number)
    assert training.end() == 128 + number
    saved = re.search(r'interim_iter_\d+\.pth', training.lines[-1])
    assert saved and signal.Signals(number).name in training.lines[-1]
    assert '--resume auto' in training.lines[-1]
    assert (folder / saved.group()).exists()
    done = train(folder, **settings)
    assert done.digest == reference[0]
    assert checkpoints(folder) == reference[1]
    assert_clean(folder)


def test_stopped(tmp_path, undisturbed):
    stop_and_resume(tmp_path / 'run', 'epochs', signal.SIGTERM, undisturbed('epochs'))


@pytest.mark.slow
@pytest.mark.parametrize('processes', [0, 2])
@pytest.mark.parametrize('name', ['SIGTERM', 'SIGUSR1', 'SIGHUP', 'SIGINT'])
def test_stopped_by_each_signal(name, processes, tmp_path, undisturbed):
    number = getattr(signal, name)
    for setting in SETTINGS:
        reference = undisturbed(setting, processes)
        stop_and_resume(tmp_path / setting, setting, number, reference, processes)


@pytest.mark.slow
def test_no_rank_ends_before_the_state_is_saved(tmp_path):
    """Slurm and mpirun kill all of a run as soon as one of its processes has ended by a signal."""
    meeting = dict(WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=str(free_port()))
    ranks = [
        Training(
            tmp_path / 'run', slow_saving=2, pause=0.1,
            group=dict(meeting, RANK=str(rank), LOCAL_RANK=str(rank)),
        )
        for rank in range(2)
    ]  # fmt: skip
    ranks[0].wait_for('iteration 3')
    for rank in ranks:
        rank.process.send_signal(signal.SIGUSR1)
    assert ranks[1].end() == 128 + signal.SIGUSR1
    assert 'interim_iter_' in (tmp_path / 'run' / 'last_checkpoint').read_text()
    assert ranks[0].end() == 128 + signal.SIGUSR1


@pytest.mark.slow
@pytest.mark.parametrize('processes', [0, 2])
def test_stopped_in_a_validation(processes, tmp_path, undisturbed):
    """One process is told, all leave the validation; it is made up."""
    settings = dict(SETTINGS['epochs'], processes=processes)
    training = Training(tmp_path / 'run', pause=0.5, **settings)
    training.wait_for('validation after 12')
    one = training.children()[-1] if processes else training.process.pid
    os.kill(one, signal.SIGTERM)
    assert training.end() == 128 + signal.SIGTERM
    assert 'the state after iteration 12 is in' in training.output
    assert 'iteration 13' not in training.output
    done = train(tmp_path / 'run', **settings)
    reference = undisturbed('epochs', processes)
    assert 'validation after 12' in done.output and done.digest == reference[0]
    assert checkpoints(tmp_path / 'run') == reference[1]


@pytest.mark.parametrize('processes', [0, pytest.param(2, marks=pytest.mark.slow)])
def test_nohup(processes, tmp_path):
    training = Training(tmp_path / 'run', processes=processes, nohup=True, pause=0.05)
    training.wait_for('iteration 3')
    training.process.send_signal(signal.SIGHUP)
    training.wait_for('iteration 6')
    training.process.send_signal(signal.SIGTERM)
    assert training.end() == 128 + signal.SIGTERM
    assert 'stopped by SIGTERM' in training.lines[-1] and 'SIGHUP' not in training.output


COMMAND = """
custom_imports = dict(imports='tests.faults.tiny_train')
custom_hooks = [dict(type='Tell', pause=0.1, slow_saving=0.5)]
"""


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_devices_of_the_command_are_stopped(number, tmp_path):
    """``attnpool train --devices`` passes a signal on, and waits until the state is saved."""
    cfg = make_config(tmp_path / 'run')
    config = tmp_path / 'tiny.py'
    config.write_text(cfg.pretty_text + COMMAND)
    words = ('train', str(config), '--devices', '2')
    training = Training(tmp_path / 'run', words=words)
    training.wait_for('iteration 3')
    ranks = training.children()
    training.process.send_signal(number)
    assert training.end() == 128 + number, training.output
    assert signal.Signals(number).name in training.lines[-1]
    assert len(list((tmp_path / 'run').glob('interim_iter_*.pth'))) == 1
    assert 'Traceback' not in training.output and not list(filter(is_running, ranks))


@pytest.mark.slow
def test_second_signal_ends_at_once(tmp_path):
    training = Training(tmp_path / 'run', slow_saving=600)
    training.wait_for('saving')
    training.process.send_signal(signal.SIGTERM)
    training.wait_for('SIGTERM: ')
    time.sleep(1.3)
    training.process.send_signal(signal.SIGTERM)
    assert training.end(5) == 128 + signal.SIGTERM
    assert training.lines[-1].startswith('ended at once by SIGTERM')


@pytest.mark.slow
def test_two_trainings_in_one_folder(tmp_path):
    first = Training(tmp_path / 'run', pause=0.5)
    first.wait_for('iteration')
    second = Training(tmp_path / 'run')
    assert second.end() == 2
    assert f'written by process {first.process.pid} on' in second.lines[-1]
    first.kill()
    assert train(tmp_path / 'run').digest


@pytest.mark.slow
@pytest.mark.parametrize('name', SETTINGS)
def test_killed_loading_processes(name, tmp_path, undisturbed):
    training = Training(tmp_path / 'run', pause=0.15, **SETTINGS[name])
    killed = []
    for iteration in (2, 9, 10, 17):
        training.wait_for(f'iteration {iteration}')
        workers = [pid for pid in training.children() if is_running(pid)]
        killed.append(workers[iteration % len(workers)])
        os.kill(killed[-1], signal.SIGKILL)
    assert training.end() == 0, training.output
    assert training.digest == undisturbed(name)[0]
    assert training.output.count('is replaced') >= 3


@pytest.mark.slow
@pytest.mark.parametrize('victim', [0, 1])
def test_killed_rank(victim, tmp_path, undisturbed):
    reference = undisturbed('epochs', 2)
    settings = dict(SETTINGS['epochs'], processes=2)
    training = Training(tmp_path / 'run', pause=0.2, **settings)
    training.wait_for('iteration 7')
    ranks = training.children()
    everybody = ranks + [child for rank in ranks for child in children_of(rank)]
    os.kill(ranks[victim], signal.SIGKILL)
    assert training.end() == 128 + signal.SIGKILL
    assert f'process {victim} (pid {ranks[victim]}) was killed by SIGKILL' in training.lines[-1]
    assert not list(filter(is_running, everybody))
    assert train(tmp_path / 'run', **settings).digest == reference[0]


@pytest.mark.slow
def test_killed_launcher(tmp_path, undisturbed):
    settings = dict(SETTINGS['epochs'], processes=2)
    training = Training(tmp_path / 'run', pause=0.2, **settings)
    training.wait_for('iteration 8')
    ranks = training.children()
    training.process.send_signal(signal.SIGKILL)
    assert comes_true(lambda: not any(map(is_running, ranks)), 60)
    # they had time to save
    assert list((tmp_path / 'run').glob('interim_iter_*.pth'))
    assert train(tmp_path / 'run', **settings).digest == undisturbed('epochs', 2)[0]


@pytest.mark.slow
def test_gradient_of_one_rank_is_not_finite(tmp_path):
    training = Training(tmp_path / 'run', processes=2, nan_rank=1)
    assert training.end() == 2
    for part in (
        r'error: a gradient is not finite at \[rank 0\] iteration 5 \(epoch 2\): .*First not '
        r'finite: nothing in a second pass',
        r'\[rank 1\] iteration 5 .*loss_size nan.*First not finite: the output of',
        r'error: process \d \(pid \d+\) ended with exit code 2',
    ):
        assert re.search(part, training.output), training.output
    assert 'Traceback' not in training.output
    assert (tmp_path / 'run' / 'epoch_1.pth').exists()


def test_file_size_limit(tmp_path):
    """The limit is below a checkpoint of a later epoch, whose log is longer."""
    folder = tmp_path / 'run'
    train(folder)
    sizes = [(folder / f'epoch_{epoch}.pth').stat().st_size for epoch in (1, 4)]
    shutil.rmtree(folder)
    limit = sizes[0] + 100
    assert limit < sizes[1]
    training = Training(folder, limits=(f'--fsize={limit}',))
    assert training.end() == 2
    assert training.lines[-1].startswith('error: the state of the training could not be saved in')
    assert 'File too large' in training.lines[-1] and 'epoch_1.pth' in training.lines[-1]
    assert 'Traceback' not in training.output
    assert find_resumable_checkpoint(str(folder)) == str(folder / 'epoch_1.pth')
    assert_clean(folder)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 300 kB."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    mount = ['mount', '-t', 'tmpfs', '-o', 'size=300k', 'none', str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip('only root can make a small file system')
    yield folder
    subprocess.run(['umount', '-l', str(folder)], check=True)


def fill(disk: Path, leave: int) -> Path:
    stuffing = disk / 'stuffing'
    free = shutil.disk_usage(disk).free
    stuffing.write_bytes(bytes(max(0, free - leave)))
    return stuffing


@pytest.mark.slow
def test_full_disk(small_disk, undisturbed):
    folder = small_disk / 'run'
    training = Training(folder, pause=0.1, **SETTINGS['iterations'])
    training.wait_for('iteration 8')
    stuffing = fill(small_disk, leave=0)
    assert training.end() == 2
    assert training.lines[-1].startswith('error: ') and 'Traceback' not in training.output
    assert 'No space left on device' in training.lines[-1]
    assert find_resumable_checkpoint(str(folder)) == str(folder / 'iter_6.pth')
    stuffing.unlink()
    assert train(folder, **SETTINGS['iterations']).digest == undisturbed('iterations')[0]
    assert_clean(folder)


@pytest.mark.slow
def test_waits_for_space(small_disk, undisturbed):
    folder = small_disk / 'run'
    training = Training(folder, pause=0.1, wait_for_space=True, **SETTINGS['iterations'])
    training.wait_for('iteration 8')
    stuffing = fill(small_disk, leave=0)
    training.wait_for('waiting: ')
    time.sleep(2)
    assert training.process.poll() is None
    stuffing.unlink()
    assert training.end() == 0, training.output
    assert training.digest == undisturbed('iterations')[0]


@pytest.mark.slow
def test_processes_of_a_sharded_model_wait_for_space(small_disk, tmp_path):
    settings = dict(SETTINGS['iterations'], processes=2, sharded=True)
    train(tmp_path / 'run', **settings)
    folder = small_disk / 'run'
    training = Training(folder, pause=0.1, wait_for_space=True, **settings)
    training.wait_for('iteration 8')
    ranks = training.children()
    stuffing = fill(small_disk, leave=0)
    training.wait_for('waiting: ')
    time.sleep(5)
    assert training.process.poll() is None and all(map(is_running, ranks))
    assert 'iteration 13' not in training.output
    stuffing.unlink()
    assert training.end() == 0, training.output
    found, expected = (
        read_content(str(run / f'iter_{ITERS}.pth'))['state_dict']
        for run in (folder, tmp_path / 'run')
    )
    assert 'backbone.0.weight' in found and found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.slow
@pytest.mark.parametrize('wait_for_space', [False, True])
def test_work_folder_that_vanishes(wait_for_space, tmp_path, undisturbed):
    folder, away = tmp_path / 'run', tmp_path / 'away'
    settings = dict(SETTINGS['iterations'], wait_for_space=wait_for_space)
    training = Training(folder, pause=0.1, **settings)
    training.wait_for('iteration 8')
    folder.rename(away)
    if wait_for_space:
        training.wait_for('waiting: ')
        away.rename(folder)
        assert training.end() == 0, training.output
        assert training.digest == undisturbed('iterations')[0]
        return
    assert training.end() == 2
    assert 'the folder is gone' in training.lines[-1] and 'Traceback' not in training.output
    assert not folder.exists()
    away.rename(folder)
    assert train(folder, **settings).digest == undisturbed('iterations')[0]
