"""A config is found, read and recognised, or one message says why not."""

import pytest
from mmengine.config import Config

from attnpool_backbones.command_line import UserError
from attnpool_backbones.config_tasks import recognise_task
from attnpool_backbones.launching.config import find_config, load_config


def test_config_is_found_or_suggested(repo_root):
    name = 'mask-rcnn_patchconvnet-s60_fpn_ms-3x_coco.py'
    path = repo_root / 'configs/patchconvnet' / name
    assert find_config(str(path)) == path
    with pytest.raises(UserError, match=f'Did you mean:\n.*{name}'):
        find_config('configs/patchconvnet/mask_rcnn_patchconvnet_s60_fpn_coco.py')
    with pytest.raises(UserError, match='not found: /nowhere/zzz'):
        find_config('/nowhere/zzz')


@pytest.mark.parametrize('scope', [None, 'mmpretrain'])
def test_unknown_task(scope):
    with pytest.raises(UserError, match="'mmdet' .*'mmseg'"):
        recognise_task(Config(dict(default_scope=scope)))
    assert recognise_task(Config(dict(default_scope='mmseg'))) == 'mmseg'


def test_bad_options_and_bases(tmp_path):
    file = tmp_path / 'config.py'
    file.write_text("default_scope = 'mmdet'\nvalues = [1, 2]\n")
    with pytest.raises(UserError, match='do not fit'):
        load_config(str(file), {'values.7': 1})
    file.write_text("_base_ = './missing.py'\n")
    with pytest.raises(UserError, match='cannot be read'):
        load_config(str(file))
    file.write_text('model = dict(\n')
    with pytest.raises(UserError, match='cannot be read'):
        load_config(str(file))
