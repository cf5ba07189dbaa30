"""The model of a config is built as a Runner builds it, without its weights."""

import pytest
from mmengine.config import Config
from mmengine.model import BaseDataPreprocessor, Sequential

from attnpool_backbones.launching.config_models import build_config_model


@pytest.mark.parametrize('kind', ['mmengine.BaseDataPreprocessor', BaseDataPreprocessor])
def test_a_model_needs_no_backbone(kind: object) -> None:
    # those of semi-supervised learning have it inside of their detector
    cfg = Config(dict(default_scope='mmengine', model=dict(type=kind)))
    assert isinstance(build_config_model(cfg), BaseDataPreprocessor)


def test_weights_are_left_out() -> None:
    init = dict(type='Pretrained', checkpoint='nowhere.pth')
    model = dict(type=Sequential, init_cfg=init)
    cfg = Config(dict(default_scope='mmengine', model=model))
    built = build_config_model(cfg)
    assert isinstance(built, Sequential) and built.init_cfg is None
