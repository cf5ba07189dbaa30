import errno
import os
import stat
from pathlib import Path

import pytest

from attnpool_backbones import atomic_files
from attnpool_backbones.atomic_files import unfinished_file, write_atomically
from attnpool_backbones.command_line import UserError


def test_a_pipe_keeps_its_place(tmp_path):
    # a user with all rights once wrote a config to /dev/zero, and the device was gone
    pipe = tmp_path / 'pipe'
    os.mkfifo(pipe)
    with pytest.raises(UserError, match='no ordinary file'), unfinished_file(pipe):
        pytest.fail('nothing may be written')
    assert pipe.is_fifo() and sorted(tmp_path.iterdir()) == [pipe]


def test_the_old_content_stays_until_the_new_one_is_whole(tmp_path):
    file = tmp_path / 'folder' / 'file'
    write_atomically(b'old', file)
    with pytest.raises(KeyError), unfinished_file(file) as part:
        part.write_bytes(b'half')
        raise KeyError
    assert file.read_bytes() == b'old' and list(file.parent.iterdir()) == [file]


def fail_for_folders(call: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a system call fail for folders alone, as file systems in user space do."""
    real = getattr(os, call)

    def failing(target: int | Path, *rest: object) -> int | None:
        if stat.S_ISDIR(os.stat(target).st_mode):
            raise OSError(number, os.strerror(number))
        return real(target, *rest)

    monkeypatch.setattr(atomic_files.os, call, failing)


@pytest.mark.parametrize(
    ('call', 'number'),
    [
        ('fsync', errno.EINVAL),
        ('fsync', errno.EBADF),
        ('fsync', errno.ENOTSUP),
        ('open', errno.EACCES),
    ],
)
def test_folders_that_cannot_be_flushed_hold_files_too(call, number, tmp_path, monkeypatch):
    fail_for_folders(call, number, monkeypatch)
    write_atomically(b'content', tmp_path / 'file')
    assert (tmp_path / 'file').read_bytes() == b'content'


def test_a_bad_disk_is_told(tmp_path, monkeypatch):
    fail_for_folders('fsync', errno.EIO, monkeypatch)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        write_atomically(b'content', tmp_path / 'file')
