"""The launcher: signals reach every process once, and nobody is left behind."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from attnpool_backbones.launching.processes import main
from attnpool_backbones.process_lifetime import is_running
from attnpool_backbones.stop_signals import STOP_SIGNALS
from tests.faults.training import end_all, started
from tests.patience import comes_true

# no torch: these processes start in a moment
WORKER = """
import os, signal, sys, time
rank, folder, what = int(os.environ['RANK']), sys.argv[1], sys.argv[2]
open(f'{folder}/{rank}', 'w').write(
    ' '.join([str(os.getpid()), os.environ['WORLD_SIZE'], os.environ['LOCAL_RANK'],
              os.environ['MASTER_ADDR'], os.environ['MASTER_PORT']]))
received = []
def stop(number, frame):
    received.append(number)
    open(f'{folder}/{rank}.told', 'w').close()
    time.sleep(0.5)  # saves
    open(f'{folder}/{rank}.stopped', 'w').write(' '.join(map(str, received)))
    os._exit(128 + number)
if what == 'stops':
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, stop)
if what == 'ignores':
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if what == 'parent':
    from attnpool_backbones.process_lifetime import end_with_parent
    end_with_parent()
if what == 'fails' and rank == 1:
    print('a message', file=sys.stderr)
    sys.exit(2)
if what == 'works':
    sys.exit(0)
open(f'{folder}/{rank}.ready', 'w').close()
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def nothing_left():
    """No launcher outlives its test."""
    yield
    end_all()


class Launched:
    """A launcher with two processes.

    Args:
        folder: Theirs.
        what: What they do.
        ignored: Signals that whoever starts the launcher ignores, in the words of a shell.
    """

    def __init__(self, folder: Path, what: str, repo_root: Path, ignored: str = '') -> None:
        self.folder = folder
        (folder / 'worker.py').write_text(WORKER)
        options = ['--nproc-per-node', '2', str(folder / 'worker.py'), str(folder), what]
        command = [sys.executable, '-m', 'attnpool_backbones.launching.processes', *options]
        if ignored:
            command = ['sh', '-c', f'trap "" {ignored}; exec "$@"', 'sh', *command]
        self.process = subprocess.Popen(
            command,
            env=dict(os.environ, PYTHONPATH=str(repo_root)),
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(self.process)

    def ready(self) -> list[int]:
        """Waits for both processes and returns their numbers."""

        def are_ready() -> bool:
            assert self.process.poll() is None
            return all((self.folder / f'{rank}.ready').exists() for rank in (0, 1))

        assert comes_true(are_ready, 60)
        return [int((self.folder / str(rank)).read_text().split()[0]) for rank in (0, 1)]

    def end(self) -> tuple[int, str]:
        """Waits for the launcher; returns its exit code and what it printed."""
        # what it prints is less than the pipe takes
        assert comes_true(lambda: self.process.poll() is not None, 60)
        _, printed = self.process.communicate(timeout=60)
        return self.process.returncode, printed


def assert_gone(numbers: list[int]) -> None:
    assert comes_true(lambda: not any(map(is_running, numbers)), 20)


@pytest.mark.parametrize('name', ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGUSR1'])
def test_signals(name, tmp_path, repo_root):
    number = getattr(signal, name)
    launched = Launched(tmp_path, 'stops', repo_root)
    workers = launched.ready()
    launched.process.send_signal(number)  # a terminal
    # signals do not queue: the first has to have arrived
    assert comes_true((tmp_path / '0.told').exists, 20)
    launched.process.send_signal(number)  # and a scheduler
    assert launched.end() == (128 + number, '')
    assert_gone(workers)
    for rank in (0, 1):
        assert (tmp_path / f'{rank}.stopped').read_text() == str(int(number))


@pytest.mark.parametrize('name', ['SIGINT', 'SIGHUP'])
def test_ignored_signals_stay_ignored(name, tmp_path, repo_root):
    """``nohup`` and ``&`` in a script ignore them."""
    launched = Launched(tmp_path, 'sleeps', repo_root, ignored=name.removeprefix('SIG'))
    workers = launched.ready()
    launched.process.send_signal(getattr(signal, name))
    time.sleep(0.5)
    assert launched.process.poll() is None and all(map(is_running, workers))
    launched.process.send_signal(signal.SIGTERM)
    assert launched.end() == (128 + signal.SIGTERM, '')
    assert_gone(workers)


def test_second_signal_ends_at_once(tmp_path, repo_root):
    launched = Launched(tmp_path, 'ignores', repo_root)
    workers = launched.ready()
    launched.process.send_signal(signal.SIGTERM)
    time.sleep(1.5)
    assert launched.process.poll() is None
    # on a slow machine this one may be the first for the launcher, or too soon after it
    for _ in range(20):
        launched.process.send_signal(signal.SIGTERM)
        if comes_true(lambda: launched.process.poll() is not None, 1.2):
            break
    assert launched.end()[0] == 128 + signal.SIGTERM
    assert_gone(workers)


def test_killed_process_ends_all_with_one_line(tmp_path, repo_root):
    launched = Launched(tmp_path, 'sleeps', repo_root)
    workers = launched.ready()
    os.kill(workers[1], signal.SIGKILL)
    code, printed = launched.end()
    assert code == 128 + signal.SIGKILL
    (line,) = printed.splitlines()
    assert f'process 1 (pid {workers[1]}) was killed by SIGKILL (out of memory?)' in line
    assert '--resume auto' in line
    assert_gone(workers)


def test_failed_process_ends_all(tmp_path, repo_root):
    launched = Launched(tmp_path, 'fails', repo_root)
    code, printed = launched.end()
    assert code == 2
    assert printed.splitlines()[0] == 'a message'
    assert 'process 1' in printed.splitlines()[1] and 'exit code 2' in printed.splitlines()[1]
    assert_gone([int((tmp_path / '0').read_text().split()[0])])


def test_killed_launcher_takes_all_with_it(tmp_path, repo_root):
    launched = Launched(tmp_path, 'parent', repo_root)
    workers = launched.ready()
    launched.process.kill()
    launched.process.communicate()
    assert_gone(workers)


def test_what_processes_are_told(tmp_path):
    (tmp_path / 'worker.py').write_text(WORKER)
    options = '--nproc-per-node=2 --nnodes=2 --node-rank=1 --master-addr=host --master-port=123'
    program = [str(tmp_path / 'worker.py'), str(tmp_path), 'works']
    handlers = [signal.getsignal(number) for number in STOP_SIGNALS]
    try:
        assert main([*options.split(), *program]) == 0
    finally:
        for number, handler in zip(STOP_SIGNALS, handlers, strict=True):
            signal.signal(number, handler)
    told = [(tmp_path / rank).read_text().split()[1:] for rank in '23']
    assert told == [['4', '0', 'host', '123'], ['4', '1', 'host', '123']]


@pytest.mark.parametrize(
    'options',
    ['--nproc-per-node 0', '--nproc-per-node 2 --nnodes 2 --node-rank 2',
     '--nproc-per-node 2 --nnodes 2', '', '--nproc-per-node 2 --master-port 65536'],
)  # fmt: skip
def test_wrong_options(options, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*options.split(), 'a.py'])
    assert stop.value.code == 2 and 'error:' in capsys.readouterr().err


@pytest.mark.parametrize('listens', ['', '127.0.0.1'])
def test_a_port_of_another_run_is_told_before_the_start(listens, tmp_path, capsys):
    (tmp_path / 'worker.py').write_text(WORKER)
    with socket.socket() as other, pytest.raises(SystemExit) as stop:
        other.bind((listens, 0))
        other.listen()
        port = str(other.getsockname()[1])
        program = [str(tmp_path / 'worker.py'), str(tmp_path), 'works']
        main(['--nproc-per-node=2', f'--master-port={port}', *program])
    assert stop.value.code == 2
    assert f'port {port} of this machine is taken' in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ['worker.py']
