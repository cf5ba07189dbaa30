"""Files that are written whole or not at all."""

import errno
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

from attnpool_backbones.command_line import UserError
from attnpool_backbones.process_lifetime import is_running

__all__ = [
    'ATOMIC_BACKEND',
    'AtomicLocalBackend',
    'NO_SPACE',
    'remove_stale_files',
    'unfinished_file',
    'write_atomically',
]

ATOMIC_BACKEND = 'attnpool_backbones.atomic'
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
"""Errors that pass when somebody makes room."""
SECONDS_BETWEEN_TRIES = 10.0
"""Of writes to a full disk."""

NO_FLUSH = (errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.EACCES)
"""Errors of file systems that flush files alone, and of folders that are not to be read."""

# .NAME.HOST-PID-RANDOM.attnpool-part: nobody else's files look like this, and the writer is told
UNFINISHED = re.compile(r'\..+\.(?P<host>[^/]*)-(?P<pid>\d+)-[0-9a-f]{8}\.attnpool-part')
OLD = 3600.0
"""Seconds after which a file that another machine has not touched is a leftover."""


def _host() -> str:
    return re.sub(r'[^\w-]', '_', socket.gethostname())[:40]


@contextmanager
def unfinished_file(path: str | Path, flush: bool = True) -> Iterator[Path]:
    """Gives a hidden file beside another one, which it replaces when the context ends well.

    When it ends by an exception, the hidden file is removed; when the process is killed, by
    :func:`remove_stale_files`.

    Args:
        path: The file to write; missing folders are made.
        flush: Whether it is on the disk before it takes the file's place, so that a machine that
            loses its power leaves the old or the new one. Default: True.

    Yields:
        The hidden file, to be written whole.

    Raises:
        UserError: If the path is a device or a pipe, whose place a file would take.
    """
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        raise UserError(f'{path} is no ordinary file, it is not replaced by one')
    path.parent.mkdir(parents=True, exist_ok=True)
    # a name has 255 bytes at most, which may be no text
    name = path.name.encode(errors='ignore')[:120].decode(errors='ignore')
    writer = f'{_host()}-{os.getpid()}-{secrets.token_hex(4)}'
    part = path.with_name(f'.{name}.{writer}.attnpool-part')
    try:
        yield part
        if flush:
            with part.open('rb+') as file:
                os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    if flush and os.name == 'posix':
        _flush_names(path.parent)


def _flush_names(folder: Path) -> None:
    """Flushes the names of a folder's files to the disk, where its file system can do that."""
    try:
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
    except OSError as error:
        if error.errno not in NO_FLUSH:
            raise


def write_atomically(content: bytes, path: str | Path, flush: bool = True) -> None:
    """Writes a file so that at any moment the old or the new content is there, never a part.

    The content goes to a hidden file in the same folder, which then takes the file's name.

    Args:
        content: All of the file.
        path: The file; missing folders are made.
        flush: As :func:`unfinished_file` takes it. Default: True.
    """
    with unfinished_file(path, flush) as part:
        part.write_bytes(content)


def remove_stale_files(folder: str | Path, name: str | None = None) -> list[Path]:
    """Removes what :func:`unfinished_file` left behind when its process was killed.

    Files of others, of running processes, and fresh ones of other machines stay.

    Args:
        folder: Searched without its subfolders; may be missing.
        name: Only what was to become this file. Default: all.

    Returns:
        The removed files.
    """
    removed = []
    for file in sorted(Path(folder).glob('.*.attnpool-part')):
        match = UNFINISHED.fullmatch(file.name)
        if match is None or (name is not None and not file.name.startswith(f'.{name}.')):
            continue
        try:
            if match['host'] == _host():
                stale = not is_running(int(match['pid']))
            else:
                stale = time.time() - file.stat().st_mtime > OLD
            if stale:
                file.unlink()
                removed.append(file)
        except FileNotFoundError:
            continue  # somebody was faster
    return removed


@register_backend(ATOMIC_BACKEND)
class AtomicLocalBackend(LocalBackend):
    """mmengine's storage of local files, with whole-or-nothing writes.

    Args:
        wait_for_space: Whether a write waits when the disk is full, instead of failing.
            Default: False.
    """

    def __init__(self, wait_for_space: bool = False) -> None:
        self.wait_for_space = wait_for_space

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Writes bytes; see :func:`write_atomically`."""
        waiting = False
        while True:
            try:
                write_atomically(obj, filepath)
                return
            except OSError as error:
                if not self.wait_for_space or error.errno not in NO_SPACE:
                    raise
                if not waiting:
                    print(
                        f'waiting: {filepath} cannot be written, {os.strerror(error.errno)} '
                        f'({len(obj) / 2**20:.1f} MiB are needed)',
                        flush=True,
                    )
                waiting = True
                time.sleep(SECONDS_BETWEEN_TRIES)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Writes text; see :func:`write_atomically`."""
        self.put(obj.encode(encoding), filepath)
