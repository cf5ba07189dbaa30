"""Pictures are written by any name, and errors are told; OpenCV's writer does neither."""

import os

import cv2
import numpy as np
import pytest

from attnpool_backbones.command_line import UserError
from attnpool_backbones.inference.sources import open_source
from attnpool_backbones.pictures import name_for_opencv, write_picture
from tests.inference.test_writing import largest_file

NO_TEXT = os.fsdecode(b'\xff')


@pytest.mark.parametrize('name', ['a', NO_TEXT])
@pytest.mark.parametrize('shape', [(8, 6), (8, 6, 3)])
def test_any_name(name, shape, tmp_path):
    picture = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    path = tmp_path / f'{name}.png'
    write_picture(path, picture)
    assert (cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED) == picture).all()


def test_errors_are_told(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(OSError, match='file'):
        write_picture(tmp_path / 'file' / 'a.png', np.zeros((8, 6, 3), np.uint8))
    with pytest.raises(UserError, match=r'70000x1 pixels cannot be written as \.jpg'):
        write_picture(tmp_path / 'a.jpg', np.zeros((1, 70000, 3), np.uint8))


def test_a_full_disk_leaves_the_picture_that_was_there(tmp_path):
    path = tmp_path / 'a.png'
    path.write_bytes(b'old')
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    with largest_file(100), pytest.raises(OSError, match='too large'):
        write_picture(path, noise)
    assert path.read_bytes() == b'old' and [*tmp_path.iterdir()] == [path]


def test_names_that_end_opencv(tmp_path):
    assert name_for_opencv(tmp_path / 'a.mp4') == f'{tmp_path}/a.mp4'
    path = tmp_path / f'{NO_TEXT}.mp4'
    path.write_bytes(b'0')
    with pytest.raises(UserError, match='no text in UTF-8'):
        open_source(path)
