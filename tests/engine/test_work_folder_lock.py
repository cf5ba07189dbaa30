"""One writer a work folder, whoever died in it before."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from attnpool_backbones.engine import work_folder_lock
from attnpool_backbones.engine.work_folder_lock import WorkFolderInUse, claimed

HOLD = """
import os, sys, time
from attnpool_backbones.engine.work_folder_lock import claimed
with claimed(sys.argv[1]):
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    print(child, flush=True)
    sys.stdin.readline()
os.kill(child, 9)
"""


@contextmanager
def holder(folder: Path, repo_root: Path) -> Iterator[tuple[subprocess.Popen, int]]:
    """Another process that holds a folder, and its child, which a kill leaves behind."""
    process = subprocess.Popen(
        [sys.executable, '-c', HOLD, str(folder)],
        env=dict(os.environ, PYTHONPATH=str(repo_root)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    child = int(process.stdout.readline())
    try:
        yield process, child
    finally:
        process.kill()
        process.wait()
        try:
            os.kill(child, signal.SIGKILL)
        except ProcessLookupError:
            pass


def test_second_writer_is_refused_until_the_first_is_killed(tmp_path, repo_root):
    with holder(tmp_path / 'run', repo_root) as (process, child):
        message = f'process {process.pid} on {socket.gethostname()} since 20.*--work-dir'
        with pytest.raises(WorkFolderInUse, match=message):
            with claimed(tmp_path / 'run'):
                pass
        process.kill()
        process.wait()
        os.kill(child, 0)  # the child lives, and does not hold the folder
        with claimed(tmp_path / 'run'):
            pass
    assert not list((tmp_path / 'run').iterdir())


def test_nothing_is_left_and_it_may_be_claimed_again(tmp_path):
    for _ in range(2):
        with claimed(tmp_path / 'run'), claimed(tmp_path / 'run'):
            assert (tmp_path / 'run' / '.writer').exists()
        assert not list((tmp_path / 'run').iterdir())


# what .writer holds beforehand -> whether the folder is refused
LEFT = {
    'empty': ('', False),
    'no json': ('\0\0{', False),
    'list': ('[1]', False),
    'dead process': (dict(pid=2**22 - 1, start='1', host='HERE', since=1e9), False),
    'other machine, long silent': (dict(pid=1, host='elsewhere', since=1e9), False),
    'other machine, just killed': (dict(pid=1, host='elsewhere', since=1e9), False),
    'other machine, alive': (dict(pid=1, host='elsewhere', since=1e9), True),
}


@contextmanager
def touched(path: Path, every: float) -> Iterator[None]:
    """Does what a living writer does."""
    ended = threading.Event()

    def touch() -> None:
        while not ended.wait(every):
            os.utime(path)

    thread = threading.Thread(target=touch)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize('name', LEFT)
def test_what_is_left_of_others(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(work_folder_lock, 'REFRESH', 0.5)
    content, refused = LEFT[name]
    if isinstance(content, dict):
        content = json.dumps(content).replace('HERE', socket.gethostname())
    (tmp_path / '.writer').write_text(content)
    if name == 'other machine, long silent':
        old = time.time() - 2 * work_folder_lock.SILENT
        os.utime(tmp_path / '.writer', (old, old))
    if refused:
        # local time: the eighth in the west
        with touched(tmp_path / '.writer', every=0.1):
            with pytest.raises(WorkFolderInUse, match='process 1 on elsewhere since 2001-09-0[89]'):
                with claimed(tmp_path):
                    pass
        return
    with claimed(tmp_path):
        pass
    assert not list(tmp_path.iterdir())
    waits = 'waiting: ' in capsys.readouterr().out
    assert waits == (name == 'other machine, just killed')


def refuse_locks(*_: object) -> None:
    raise OSError(38, 'Function not implemented')


def test_a_writer_elsewhere_ends_while_it_is_watched(tmp_path, monkeypatch):
    file = tmp_path / '.writer'
    file.write_text(json.dumps(dict(pid=1, host='elsewhere', since=1e9)))
    monkeypatch.setattr(work_folder_lock.time, 'sleep', lambda _: file.unlink(missing_ok=True))
    with claimed(tmp_path):
        assert file.exists()
    assert not list(tmp_path.iterdir())


def test_another_machine_without_locks_is_waited_for_longer(tmp_path, monkeypatch):
    monkeypatch.setattr(work_folder_lock.fcntl, 'lockf', refuse_locks)
    (tmp_path / '.writer').write_text(json.dumps(dict(pid=1, host='elsewhere', since=1e9)))
    with pytest.raises(WorkFolderInUse, match='process 1 on elsewhere'):
        with claimed(tmp_path):
            pass


def test_file_systems_without_locks(tmp_path, monkeypatch):
    monkeypatch.setattr(work_folder_lock.fcntl, 'lockf', refuse_locks)
    parent = os.getppid()
    alive = dict(
        pid=parent,
        start=work_folder_lock.start_time(parent),
        host=socket.gethostname(),
        since=1e9,
    )
    (tmp_path / '.writer').write_text(json.dumps(alive))
    with pytest.raises(WorkFolderInUse, match=f'process {parent}'):
        with claimed(tmp_path):
            pass
    # the number was given to another process since
    (tmp_path / '.writer').write_text(json.dumps(dict(alive, start='1')))
    with claimed(tmp_path):
        pass


def test_shows_that_it_lives(tmp_path, monkeypatch):
    monkeypatch.setattr(work_folder_lock, 'REFRESH', 0.01)
    with claimed(tmp_path):
        os.utime(tmp_path / '.writer', (1, 1))
        for _ in range(500):
            if (tmp_path / '.writer').stat().st_mtime > 1:
                break
            time.sleep(0.01)
        assert (tmp_path / '.writer').stat().st_mtime > 1


def test_a_folder_that_vanishes(tmp_path):
    with claimed(tmp_path / 'run'):
        (tmp_path / 'run').rename(tmp_path / 'moved')
