"""Weights that are missing on disk are named before anything is built."""

import pytest
from mmengine.config import Config
from mmengine.model import PretrainedInit

from attnpool_backbones.command_line import UserError
from attnpool_backbones.config_files import config_root
from attnpool_backbones.launching.pretrained_files import pretrained_files, require_pretrained


def test_pretrained_files(tmp_path):
    model = dict(
        backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='missing.pth')),
        heads=[
            dict(
                init_cfg=[
                    dict(type='Pretrained', checkpoint='https://x.org/a.pth'),
                    dict(type='Normal', std=0.1),
                    dict(type=PretrainedInit, checkpoint='lost.pth'),
                ]
            )
        ],
    )
    assert list(pretrained_files(model)) == ['missing.pth', 'lost.pth']
    with pytest.raises(UserError, match='missing.pth'):
        require_pretrained(Config(dict(model=model)))


def test_pretrained_files_of_own_configs_have_a_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = config_root() / 'attn_resnet' / 'retinanet_se-resnet50_fpn_2x_coco.py'
    with pytest.raises(UserError, match='se_resnet50.pth.tar') as caught:
        require_pretrained(Config.fromfile(config))
    page = config.with_name('README.md')
    assert f'{page}, section Weights' in str(caught.value) and '\n## Weights\n' in page.read_text()
    (tmp_path / 'mine.py').write_text(f'_base_ = {str(config)!r}')
    (tmp_path / 'README.md').touch()
    with pytest.raises(UserError, match='se_resnet50.pth.tar') as caught:
        require_pretrained(Config.fromfile(tmp_path / 'mine.py'))
    assert 'README' not in str(caught.value)
