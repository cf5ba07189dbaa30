"""Images and masks that would fill the memory are refused before they are decoded."""

import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from attnpool_backbones.command_line import message_of
from attnpool_backbones.datasets.bit_depth import is_wide
from attnpool_backbones.datasets.limits import (
    InputLimits,
    InputTooLarge,
    LostDepth,
    require_image_size,
)
from attnpool_backbones.datasets.sample_reading import Sample, read_sample


def png(path: Path, width: int, height: int) -> str:
    """A PNG of one bit a pixel, whose header tells its size; what follows is short."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack('>I', len(content)) + body + struct.pack('>I', zlib.crc32(body))

    header = chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 1, 0, 0, 0, 0))
    rows = chunk(b'IDAT', zlib.compress(bytes(1000)))
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + header + rows + chunk(b'IEND', b''))
    return str(path)


@pytest.mark.parametrize('key', ['img_path', 'seg_map_path'])
@pytest.mark.parametrize('sides', [(30000, 30000), (60000, 60000), (2**28, 2)])
def test_large_images_are_refused(key, sides, tmp_path):
    path = png(tmp_path / 'x.png', *sides)
    with pytest.raises(InputTooLarge, match=rf'x\.png has {sides[0]}x{sides[1]} pixels'):
        InputLimits()({key: path})
    # a limit of one's own
    assert InputLimits(max_pixels=2**40)({key: path}) == {key: path}


@pytest.mark.parametrize('sides', [(14000, 14000), (16384, 16384), (1, 1)])
def test_large_images_that_can_be_loaded_are_taken(sides, tmp_path):
    limit = Image.MAX_IMAGE_PIXELS
    results = dict(img_path=png(tmp_path / 'x.png', *sides))
    assert InputLimits()(results) is results
    assert Image.MAX_IMAGE_PIXELS == limit


def test_pipes_and_devices_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / 'pipe.png')
    for path in (str(tmp_path / 'pipe.png'), '/dev/zero', str(tmp_path)):
        with pytest.raises(InputTooLarge, match='no ordinary file'):
            InputLimits()(dict(img_path=path))


@pytest.mark.parametrize('bits', [8, 16])
@pytest.mark.parametrize('channels', [1, 3, 4])
def test_the_short_look_at_a_png_tells_what_pillow_tells(channels, bits, tmp_path):
    path = str(tmp_path / 'x.png')
    cv2.imwrite(path, np.ones((3, 5, channels), f'uint{bits}'))
    with Image.open(path) as image:
        assert require_image_size(path) == is_wide(image) == (bits == 16)
        with pytest.raises(InputTooLarge, match='has {}x{} pixels'.format(*image.size)):
            require_image_size(path, 14)
    assert require_image_size(path, 15) == (bits == 16)


@pytest.mark.parametrize('content', [b'', b'GIF89a', b'\x89PNG\r\n\x1a\n', b'P6\n99'])
def test_what_cannot_be_read_is_left_to_the_loader(content, tmp_path):
    (tmp_path / 'x.png').write_bytes(content)
    for name in ('x.png', 'missing.png', 'null\0.png'):
        InputLimits()(dict(img_path=str(tmp_path / name)))


@pytest.mark.parametrize('counts', ['abc', [3600000000]])
def test_large_masks_are_refused(counts, tmp_path):
    def sample(side: int) -> dict:
        return dict(img_path='x.png', instances=[dict(mask=dict(size=[side, side], counts=counts))])

    with pytest.raises(InputTooLarge, match=r'a mask of x\.png has 60000x60000 pixels'):
        InputLimits()(sample(60000))
    InputLimits()(sample(600))
    InputLimits()(dict(img_path='x.png', instances=[dict(mask=[[1, 2, 3, 4, 5, 6]]), {}]))


def test_inferencers_give_paths_and_arrays(tmp_path):
    path = png(tmp_path / 'x.png', 30000, 30000)
    with pytest.raises(InputTooLarge):
        InputLimits()(path)
    array = object()
    assert InputLimits()(array) is array


def never_called(results: dict) -> dict:
    raise AssertionError


def test_the_data_check_reports_them(tmp_path):
    path = png(tmp_path / 'x.png', 30000, 30000)
    problems, _ = read_sample(Sample('train', dict(img_path=path)))
    assert [(p.kind, p.item) for p in problems] == [('image too large', path)]
    assert '30000x30000' in problems[0].detail
    Image.new('L', (64, 64)).save(path)
    mask = dict(size=[60000, 60000], counts=[3600000000])
    sample = Sample('train', dict(img_path=path, instances=[dict(mask=mask)]), (never_called,))
    problems, _ = read_sample(sample)
    assert [(p.kind, p.item) for p in problems] == [('mask too large', path)]


def test_the_data_check_takes_a_limit_of_its_own(tmp_path):
    path = str(tmp_path / 'x.png')
    Image.new('L', (64, 64)).save(path)
    info = dict(img_path=path, instances=[dict(mask=dict(size=[64, 65], counts=[4160]))])
    (problem,), _ = read_sample(Sample('train', info, max_pixels=64 * 64))
    assert problem.kind == 'mask too large' and '65x64' in problem.detail
    (problem,), _ = read_sample(Sample('train', info, max_pixels=64 * 64 - 1))
    assert problem.kind == 'image too large'
    assert read_sample(Sample('train', info, max_pixels=64 * 65))[0] == []


SIXTEEN = {
    'full': (65535, {}, None),
    'of 12 bits': (4000, {}, 'become at most 15 of 255'),
    'of 8 bits': (200, {}, 'are loaded as 0'),
    'cut': (65535, dict(depth='cut'), 'cuts at 255'),
    'kept': (4000, dict(depth='kept'), None),
    'black': (0, {}, None),
}


@pytest.mark.parametrize('name', SIXTEEN)
@pytest.mark.parametrize(
    ('suffix', 'channels'),
    [('png', 1), ('png', 3), ('tiff', 1), ('tiff', 3), ('ppm', 3), ('pgm', 1)],
)
def test_images_of_16_bits_are_scaled_or_refused(name, suffix, channels, tmp_path):
    top, settings, message = SIXTEEN[name]
    values = np.linspace(0, top, 64).astype(np.uint16)
    image = np.tile(values, (48, 1))
    path = str(tmp_path / f'x.{suffix}')
    cv2.imwrite(path, image if channels == 1 else np.dstack([image] * 3))
    if message is None:
        assert InputLimits(**settings)(dict(img_path=path))
        return
    with pytest.raises(LostDepth, match=message):
        InputLimits(**settings)(dict(img_path=path))


@pytest.mark.parametrize('kind', ['L', 'RGB', 'RGBA', 'P', '1', 'CMYK'])
def test_images_of_8_bits_are_not_decoded(kind, tmp_path, monkeypatch):
    path = str(tmp_path / 'x.tiff')
    Image.new(kind, (64, 48)).save(path)
    monkeypatch.setattr(cv2, 'imdecode', None)
    InputLimits()(dict(img_path=path, seg_map_path=path))


@pytest.mark.parametrize(('label', 'is_lost'), [(255, False), (65535, False), (300, True)])
def test_label_maps_of_16_bits_are_whole_or_refused(label, is_lost, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 20)  # ours counts
    path = str(tmp_path / 'x.png')
    cv2.imwrite(path, np.full((8, 8), label, np.uint16))
    if not is_lost:
        InputLimits()(dict(seg_map_path=path))
        return
    with pytest.raises(LostDepth, match=r'labels \[300\] do not fit into 8 bits'):
        InputLimits()(dict(seg_map_path=path))


# formats that OpenCV reads, and Pillow does not
HEADERS = {
    'hdr': b'#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 60000 +X 50000\n',
    'pam': b'P7\nWIDTH 50000\nHEIGHT 60000\nDEPTH 3\nMAXVAL 255\nENDHDR\n',
    'pfm': b'PF\n50000 60000\n-1.0\n',
}


@pytest.mark.parametrize('suffix', HEADERS)
def test_large_images_of_rare_formats_are_refused(suffix, tmp_path):
    path = tmp_path / f'x.{suffix}'
    path.write_bytes(HEADERS[suffix] + bytes(100))
    with pytest.raises(InputTooLarge, match='50000x60000'):
        InputLimits()(dict(img_path=str(path)))
    path.write_bytes(HEADERS[suffix].replace(b'0000', b'0') + bytes(10000))
    InputLimits()(dict(img_path=str(path)))


def test_files_of_more_bytes_than_an_image_are_not_read(tmp_path):
    with (tmp_path / 'x.png').open('wb') as file:
        file.truncate(2**32)  # without taking room
    with pytest.raises(InputTooLarge, match='has 4294967296 bytes'):
        InputLimits()(dict(img_path=str(tmp_path / 'x.png')))


def test_errors_of_loading_processes_are_one_line():
    text = (
        'Caught InputTooLarge in DataLoader worker process 0.\nOriginal Traceback (most recent '
        'call last):\n  File "x.py", line 1\n'
        'attnpool_backbones.datasets.limits.InputTooLarge: x.png has 3x3 pixels: too many\n'
    )
    assert message_of(InputTooLarge(text)) == 'x.png has 3x3 pixels: too many'
    assert message_of(InputTooLarge('two\nlines')) == 'two\nlines'
