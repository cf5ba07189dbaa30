"""Images and masks that would fill the memory are refused before they are decoded."""

import os
import struct
import zlib
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import TRANSFORMS as ROOT_TRANSFORMS
from PIL import Image

from attnpool_backbones.command_line import message_of
from attnpool_backbones.datasets.limits import InputLimits, InputTooLarge
from attnpool_backbones.datasets.sample_reading import Sample, read_sample
from attnpool_backbones.launching.input_limits import limit_inputs


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


def test_every_pipeline_of_a_run_begins_with_it():
    def dataset(name: str) -> dict:
        return dict(type=name, pipeline=[dict(type='LoadImageFromFile')])

    cfg = Config(
        dict(
            train_dataloader=dict(
                dataset=dict(
                    type='MultiImageMixDataset',
                    pipeline=[dict(type='Mosaic')],
                    dataset=dict(type='ConcatDataset', datasets=[dataset('A'), dataset('B')]),
                )
            ),
            test_dataloader=dict(dataset=dataset('C')),
            val_dataloader=None,
            max_pixels=10**9,
        )
    )
    limit_inputs(cfg)
    limit_inputs(cfg)
    mixed = cfg.train_dataloader.dataset
    assert [step.type for step in mixed.pipeline] == ['Mosaic']
    for inner in (*mixed.dataset.datasets, cfg.test_dataloader.dataset):
        assert [step.type for step in inner.pipeline] == [
            'attnpool_backbones.InputLimits',
            'LoadImageFromFile',
        ]
        assert ROOT_TRANSFORMS.build(inner.pipeline[0]).max_pixels == 10**9


def test_errors_of_loading_processes_are_one_line():
    text = (
        'Caught InputTooLarge in DataLoader worker process 0.\nOriginal Traceback (most recent '
        'call last):\n  File "x.py", line 1\n'
        'attnpool_backbones.datasets.limits.InputTooLarge: x.png has 3x3 pixels: too many\n'
    )
    assert message_of(InputTooLarge(text)) == 'x.png has 3x3 pixels: too many'
    assert message_of(InputTooLarge('two\nlines')) == 'two\nlines'
