import os

import pytest

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
