"""One writer a work folder."""

import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from attnpool_backbones.command_line import UserError
from attnpool_backbones.process_lifetime import is_running, start_time

__all__ = ['WorkFolderInUse', 'claimed']

NAME = '.writer'
REFRESH = 30.0
"""Seconds after which a writer shows that it is alive, for those who cannot ask its machine."""

SILENT = 10 * REFRESH
"""Seconds of silence after which the writer of another machine is taken for dead, unwatched."""

_held: set[str] = set()  # folders that this process has claimed


class WorkFolderInUse(UserError):
    """Another process writes into a work folder."""


@contextmanager
def claimed(folder: str | os.PathLike, option: str = '--work-dir') -> Iterator[None]:
    """Makes this process the only writer of a work folder, as long as the context lasts.

    The claim is a lock of the system on the file ``.writer``, which ends with the process, however
    it does; the file tells who holds it. Not all file systems share locks with other machines, so a
    file of another machine is watched for a minute before it is taken over; where there are no
    locks at all, its age has to be 5 minutes. A process may claim a folder again.

    Args:
        folder: Made if it is missing.
        option: The flag that names another folder. Default: ``'--work-dir'``.

    Raises:
        WorkFolderInUse: Naming process, machine and since when.
    """
    key = os.path.realpath(folder)
    if key in _held:
        yield
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    path = Path(folder) / NAME
    file = _lock(path, option)
    _held.add(key)
    ended = threading.Event()
    sign_of_life = threading.Thread(target=_refresh, args=(path, ended), daemon=True)
    sign_of_life.start()
    try:
        yield
    finally:
        ended.set()
        sign_of_life.join()
        _held.remove(key)
        _unlock(file, path)


def _lock(path: Path, option: str) -> Any:
    while True:
        # Closing any other opening of it would end the lock: it is read and written here only.
        file = path.open('a+')
        try:
            # of the process, not of the file: children that outlive it do not hold it
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = True
        except (BlockingIOError, PermissionError):
            file.close()
            raise WorkFolderInUse(_message(path, option)) from None
        except OSError:
            locked = False  # a file system without locks: the content has to do
        if _is_at(file, path):
            file.seek(0)
            if _is_held_elsewhere(_parse(file.read()), path, locked):
                file.close()
                raise WorkFolderInUse(_message(path, option))
        if not _is_at(file, path):
            file.close()  # the holder before has just removed it
            continue
        pid = os.getpid()
        holder = dict(pid=pid, start=start_time(pid), host=socket.gethostname(), since=time.time())
        file.truncate(0)
        file.write(json.dumps(holder))
        file.flush()
        return file


def _unlock(file: Any, path: Path) -> None:
    try:
        if _is_at(file, path):
            path.unlink()
    except OSError:
        pass  # the folder is gone, or no longer writable; the lock ends with the file all the same
    file.close()


def _is_at(file: Any, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _parse(content: str) -> dict:
    try:
        holder = json.loads(content)
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def _is_held_elsewhere(holder: dict, path: Path, locked: bool) -> bool:
    """Tells of a holder that the system's lock does not know."""
    if not holder:
        return False
    if holder.get('host') != socket.gethostname():
        return _age(path) < SILENT and not (locked and _falls_silent(holder, path))
    pid = holder.get('pid')
    return (
        not locked
        and type(pid) is int
        and pid != os.getpid()
        and is_running(pid)
        and start_time(pid) == holder.get('start')
    )


def _falls_silent(holder: dict, path: Path) -> bool:
    """Watches whether the writer of another machine touches its file, as all that live do."""
    seen, seconds = path.stat().st_mtime_ns, 2 * REFRESH
    print(
        f'waiting: {path.parent} was written from {holder.get("host", "an unknown machine")} '
        f'before; it is taken over unless that run shows in {seconds:.0f} s that it lives',
        flush=True,
    )
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(REFRESH / 30)
        try:
            if path.stat().st_mtime_ns != seen:
                return False
        except FileNotFoundError:
            return True
    return True


def _age(path: Path) -> float:
    """Returns the seconds since a file was touched, by the clock of its own file system."""
    probe = path.with_name(f'{NAME}.{os.getpid()}')
    probe.touch()
    try:
        return probe.stat().st_mtime - path.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _refresh(path: Path, ended: threading.Event) -> None:
    while not ended.wait(REFRESH):
        try:
            os.utime(path)
        except OSError:
            pass  # saving will tell


def _message(path: Path, option: str) -> str:
    holder = _parse(path.read_text(errors='replace') if path.exists() else '')
    since = holder.get('since')
    known = isinstance(since, (int, float)) and 0 < since < 2**33
    when = f'{datetime.fromtimestamp(since):%Y-%m-%d %H:%M:%S}' if known else 'an unknown time'
    return (
        f'{path.parent} is written by process {holder.get("pid", "?")} on '
        f'{holder.get("host", "an unknown machine")} since {when}. Two runs in one folder '
        f"would destroy each other's files: stop that one, or give this one another {option} "
        f'(if that machine is down, remove {path})'
    )
