"""The steps that the quickstart and the benchmark share."""

import errno
import json
import logging
import os
import shutil
import signal

import pytest
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import Runner, ValLoop

from attnpool_backbones.command_line import UserError
from attnpool_backbones.config_files import config_root
from attnpool_backbones.datasets.digit_scenes import generate
from attnpool_backbones.engine import ProgressHook
from attnpool_backbones.experiments import crop_pretraining
from attnpool_backbones.experiments.digit_training import (
    build_backbone,
    checkpoint_digest,
    train_and_evaluate,
)
from attnpool_backbones.stop_signals import Stopped
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


def arguments(folder, task):
    """Returns what trains for two iterations, in the folder ``run``, and evaluates."""
    scenes, start = folder / 'scenes', folder / 'start.pth'
    generate(scenes, train=4, val=2, size=64)
    config = write_config(folder, task, scenes)
    classifier = crop_pretraining.CropClassifier(build_backbone(Config.fromfile(config)), 10)
    crop_pretraining.save_backbone(classifier, start)
    return 'name', str(config), {'mIoU': 'mIoU'}, folder / 'run', str(start), print


@pytest.mark.parametrize('task', ['det', 'seg'])
def test_a_training_is_evaluated_once(task, tmp_path, monkeypatch):
    args, folder = arguments(tmp_path, task), tmp_path / 'run'
    evaluated = []
    run = ValLoop.run
    monkeypatch.setattr(ValLoop, 'run', lambda loop: evaluated.append(run(loop)) or evaluated[-1])
    result, _ = train_and_evaluate(*args)
    assert len(evaluated) == 1
    assert result.metrics == ({'mIoU': evaluated[0]['mIoU']} if task == 'seg' else {})
    stored, digest = (folder / 'result.json').read_text(), checkpoint_digest(folder)
    # nothing is left to do, and what was made of the checkpoint stays true
    again, _ = train_and_evaluate(*args)
    assert len(evaluated) == 1 and again == result
    assert (folder / 'result.json').read_text() == stored == json.dumps(vars(again), indent=2)
    assert checkpoint_digest(folder) == digest


def test_a_stopped_training_names_no_flag_of_another_command(tmp_path, monkeypatch, capsys):
    args = arguments(tmp_path, 'seg')
    stop = lambda *_, **__: os.kill(os.getpid(), signal.SIGINT)  # noqa: E731
    monkeypatch.setattr(ProgressHook, 'after_train_iter', stop)
    with pytest.raises(Stopped):
        train_and_evaluate(*args)
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.endswith('. The same command goes on from there')


@pytest.mark.parametrize('fault', ['full disk', 'lost folder'])
def test_a_training_without_its_disk_names_no_flag_of_another_command(fault, tmp_path, monkeypatch):
    args, folder = arguments(tmp_path, 'seg'), tmp_path / 'run'

    def fail(*_, **__):
        raise OSError(errno.ENOSPC, 'no space')

    def lose(*_, **__):
        if folder.exists():
            shutil.move(folder, tmp_path / 'elsewhere')

    if fault == 'full disk':
        monkeypatch.setattr(Runner, 'save_checkpoint', fail)
        ends = 'no space. Put it right; the same command goes on'
    else:
        monkeypatch.setattr(ProgressHook, 'after_train_iter', lose)
        ends = 'Bring it back; the same command goes on from its last checkpoint'
    with pytest.raises(UserError) as error:
        train_and_evaluate(*args)
    assert str(error.value).endswith(ends)
