"""Pictures are written by any name, and errors are told; OpenCV's writer does neither."""

import os

import cv2
import numpy as np
import pytest

from attnpool_backbones.command_line import UserError
from attnpool_backbones.inference.sources import open_source
from attnpool_backbones.pictures import name_for_opencv, write_picture

NO_TEXT = os.fsdecode(b'\xff')


@pytest.mark.parametrize('name', ['a', NO_TEXT])
@pytest.mark.parametrize('shape', [(8, 6), (8, 6, 3)])
def test_any_name(name, shape, tmp_path):
    picture = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    path = tmp_path / f'{name}.png'
    write_picture(path, picture)
    assert (cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED) == picture).all()


def test_errors_are_told(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_picture(tmp_path / 'nowhere' / 'a.png', np.zeros((8, 6, 3), np.uint8))
    with pytest.raises(UserError, match=r'70000x1 pixels cannot be written as \.jpg'):
        write_picture(tmp_path / 'a.jpg', np.zeros((1, 70000, 3), np.uint8))


def test_names_that_end_opencv(tmp_path):
    assert name_for_opencv(tmp_path / 'a.mp4') == f'{tmp_path}/a.mp4'
    path = tmp_path / f'{NO_TEXT}.mp4'
    path.write_bytes(b'0')
    with pytest.raises(UserError, match='no text in UTF-8'):
        open_source(path)
