"""The steps that the quickstart and the benchmark share."""

import json
import logging

import pytest
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import ValLoop

from attnpool_backbones.config_files import config_root
from attnpool_backbones.datasets.digit_scenes import generate
from attnpool_backbones.experiments import crop_pretraining
from attnpool_backbones.experiments.digit_training import (
    build_backbone,
    checkpoint_digest,
    train_and_evaluate,
)
from tests.launching.tiny_scenes import write_config


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


@pytest.mark.parametrize('task', ['det', 'seg'])
def test_a_training_is_evaluated_once(task, tmp_path, monkeypatch):
    scenes, start, folder = (tmp_path / name for name in ('scenes', 'start.pth', 'run'))
    generate(scenes, train=4, val=2, size=64)
    config = write_config(tmp_path, task, scenes)
    classifier = crop_pretraining.CropClassifier(build_backbone(Config.fromfile(config)), 10)
    crop_pretraining.save_backbone(classifier, start)
    evaluated = []
    run = ValLoop.run
    monkeypatch.setattr(ValLoop, 'run', lambda loop: evaluated.append(run(loop)) or evaluated[-1])
    args = ('name', str(config), {'mIoU': 'mIoU'}, folder, str(start), print)
    result, _ = train_and_evaluate(*args)
    assert len(evaluated) == 1
    assert result.metrics == ({'mIoU': evaluated[0]['mIoU']} if task == 'seg' else {})
    stored, digest = (folder / 'result.json').read_text(), checkpoint_digest(folder)
    # nothing is left to do, and what was made of the checkpoint stays true
    again, _ = train_and_evaluate(*args)
    assert len(evaluated) == 1 and again == result
    assert (folder / 'result.json').read_text() == stored == json.dumps(vars(again), indent=2)
    assert checkpoint_digest(folder) == digest
