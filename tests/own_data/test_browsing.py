"""Samples are drawn with their labels before and after augmentation."""

import numpy as np
import pytest

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from attnpool_backbones.command_line import UserError
from attnpool_backbones.datasets.digit_scenes import CLASSES
from attnpool_backbones.own_data.browsing import contact_sheet, draw_samples, write_page
from attnpool_backbones.own_data.preparing import prepare
from attnpool_backbones.own_data.request import Request


@pytest.fixture(params=['mask-rcnn', 'upernet'])
def cfg(digits, tmp_path, request):
    said = Request(str(digits), 'caformer-nano', request.param, size=64, work_dir=f'{tmp_path}/run')
    return prepare(said, tell=lambda line: None).cfg


def test_samples_of_a_split(cfg):
    samples = draw_samples(cfg, 'train', 3)
    assert len(samples) == 3
    for sample in samples:
        # as it lies on the disk, and as the pipeline resizes it
        assert sample.before.shape == (64, 96, 3)
        assert max(sample.after.shape[:2]) == 64
        names = CLASSES if cfg.default_scope == 'mmdet' else ['class_']
        assert any(name in sample.labels for name in names)
    assert len({sample.name for sample in samples}) == 3
    again = draw_samples(cfg, 'train', 3)
    assert all(np.array_equal(a.after, b.after) for a, b in zip(samples, again, strict=True))
    assert len(draw_samples(cfg, 'val', 99)) == 5


def test_sheet_and_page_have_all_samples(cfg, tmp_path):
    samples = draw_samples(cfg, 'train', 3)
    sheet = contact_sheet(samples, columns=2)
    assert sheet.ndim == 3 and sheet.shape[1] > 2 * 2 * 320
    text = write_page(samples, tmp_path / 'page', 'scenes <1>').read_text()
    assert text.count('<figure>') == 3 and 'scenes &lt;1&gt;' in text
    assert len(list((tmp_path / 'page/samples').glob('*.jpg'))) == 6


def test_split_that_is_not_there(cfg):
    cfg.pop('test_dataloader')
    with pytest.raises(UserError, match='no test_dataloader'):
        draw_samples(cfg, 'test', 3)
