"""The steps that the quickstart and the benchmark share."""

import logging

import pytest
from mmengine.config import Config
from mmengine.logging import MMLogger

from attnpool_backbones.config_files import config_root
from attnpool_backbones.experiments.digit_training import build_backbone


@pytest.fixture
def no_logger(monkeypatch):
    """A process in which nothing has been logged yet."""
    monkeypatch.setattr(MMLogger, '_instance_dict', type(MMLogger._instance_dict)())
    yield
    for name in ('mmengine', 'pretraining'):
        logging.Logger.manager.loggerDict.pop(name, None)


def test_a_backbone_is_built_without_a_list_of_its_parameters(capsys, no_logger):
    config = config_root() / 'poolformer/mask-rcnn_poolformer-nano_slim-fpn_digit-scenes.py'
    backbone = build_backbone(Config.fromfile(config))
    assert len(list(backbone.parameters())) > 50
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ('', '')
