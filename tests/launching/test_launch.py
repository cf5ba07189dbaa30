"""Flags become a plan."""

import pytest
from mmengine.config import Config

from attnpool_backbones.launching import launch
from attnpool_backbones.launching.errors import PreflightError


@pytest.mark.parametrize('present', [None, dict(enable=False)])
def test_auto_scale_lr_needs_a_batch_size(present):
    cfg = Config(dict(auto_scale_lr=present))
    with pytest.raises(PreflightError, match='base_batch_size=16'):
        launch.enable_auto_scale_lr(cfg)
    cfg.auto_scale_lr = dict(base_batch_size=16)
    launch.enable_auto_scale_lr(cfg)
    assert cfg.auto_scale_lr.enable is True
