"""Flags become a plan, and errors of a run are told as what they are."""

import argparse
import errno
import io
import logging
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, HOOKS, METRICS

from attnpool_backbones.command_line import UserError, run_command
from attnpool_backbones.launching import launch
from attnpool_backbones.launching.config_errors import explained
from attnpool_backbones.launching.options import add_common_arguments
from attnpool_backbones.launching.preflight import targets
from attnpool_backbones.launching.run_plan import RunPlan
from attnpool_backbones.launching.safeguards import add_safeguards
from attnpool_backbones.launching.training_options import add_training_arguments
from tests.engine.tiny_run import RUN_NUMBERS, make_config


class Failing(BaseMetric):
    """Fails as the metric of somebody else may."""

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(len(data_samples))

    def compute_metrics(self, results: list) -> dict[str, float]:
        raise KeyError('a metric')


class MeanOfNothing(Failing):
    """Does not fail."""

    def compute_metrics(self, results: list) -> dict[str, float]:
        return dict(mean=0.0)


class FailingAt(Hook):
    """Fails at one point of a run."""

    def __init__(self, point: str, words: str) -> None:
        def fail(*_: Any, **__: Any) -> None:
            raise RuntimeError(words)

        setattr(self, point, fail)


class FullDisk(io.StringIO):
    """What a file on it does."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, 'No space left on device')


METRICS.register_module(module=Failing, force=True)
METRICS.register_module(module=MeanOfNothing, force=True)
HOOKS.register_module(module=FailingAt, force=True)


def plan_of(folder: Path, point: str = '', words: str = '', metric: str = '') -> RunPlan:
    cfg = make_config(folder)
    cfg.launcher = 'none'
    cfg.experiment_name = f'launch_{next(RUN_NUMBERS)}'
    add_safeguards(cfg)
    if point:
        cfg.custom_hooks += [dict(type='FailingAt', point=point, words=words)]
    if metric:
        cfg.val_dataloader = dict(cfg.train_dataloader, sampler=dict(type='DefaultSampler'))
        cfg.val_cfg, cfg.val_evaluator = dict(), dict(type=metric)
        cfg.train_cfg.val_interval = 1
    return RunPlan(cfg, ('train',), True, 'load_from', False)


def test_the_key_of_an_error_lies_in_the_part_that_was_built():
    # alike, and in the order in which mmengine writes configs
    splits = ('test', 'train')
    cfg = Config({f'{split}_dataloader': dict(dataset=dict(type='A')) for split in splits})
    for split in splits:
        with (
            pytest.raises(UserError, match=f'at {split}_dataloader.dataset '),
            explained(cfg, f'{split}_dataloader'),
        ):
            DATASETS.build(dict(type='A'))


@pytest.mark.parametrize('point', ['before_run', 'before_train', 'before_train_epoch'])
def test_errors_of_the_start_are_of_the_config(point, tmp_path):
    plan = plan_of(tmp_path, point, 'cannot be 7')
    with pytest.raises(UserError, match='the run of .* cannot be built: .*cannot be 7'):
        launch.run_training(plan)


@pytest.mark.parametrize('point', ['before_train_iter', 'after_train_epoch', 'after_train'])
def test_errors_after_the_start_stay_what_they_are(point, tmp_path):
    plan = plan_of(tmp_path, point, 'cannot be 7')
    with pytest.raises(RuntimeError, match='^cannot be 7$'):
        launch.run_training(plan)


@pytest.mark.parametrize('point', ['before_val', 'after_val_epoch'])
def test_errors_of_a_validation_stay_what_they_are(point, tmp_path):
    plan = plan_of(tmp_path, point, 'cannot be 7', metric='MeanOfNothing')
    with pytest.raises(RuntimeError, match='^cannot be 7$'):
        launch.run_training(plan)


def test_errors_of_a_metric_stay_what_they_are(tmp_path):
    with pytest.raises(KeyError, match='a metric'):
        launch.run_training(plan_of(tmp_path, metric='Failing'))


def test_a_partner_lost_at_the_start_is_told(tmp_path, monkeypatch, capsys):
    plan = plan_of(tmp_path, 'before_train', 'gloo: Connection closed by peer')
    monkeypatch.setenv('RANK', '0')
    assert run_command(lambda: launch.run_training(plan)) == 3
    assert 'another process of this run was lost' in capsys.readouterr().err


@pytest.mark.parametrize('present', [None, dict(enable=False)])
def test_auto_scale_lr_needs_a_batch_size(present):
    cfg = Config(dict(auto_scale_lr=present))
    with pytest.raises(UserError, match='base_batch_size=16'):
        launch.enable_auto_scale_lr(cfg)
    cfg.auto_scale_lr = dict(base_batch_size=16)
    launch.enable_auto_scale_lr(cfg)
    assert cfg.auto_scale_lr.enable is True


def test_the_folder_of_the_checkpoints_is_tried_before_the_start(tmp_path):
    (tmp_path / 'file').touch()
    cfg = make_config(tmp_path / 'run', checkpoint=dict(out_dir=str(tmp_path / 'file')))
    cfg.custom_imports = dict(imports='tests.engine.tiny_run')
    cfg.dump(tmp_path / 'tiny.py')
    parser = argparse.ArgumentParser()
    add_common_arguments(parser)
    add_training_arguments(parser)
    args = parser.parse_args([])
    args.config = str(tmp_path / 'tiny.py')
    with pytest.raises(UserError, match=r'checkpoint.out_dir .*/file/run: cannot be written to'):
        targets(launch.plan_training(args))


@pytest.mark.parametrize('tests', [False, True])
def test_a_log_on_a_full_disk_does_not_fill_the_screen(tests, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(logging, 'raiseExceptions', True)
    runner = launch.build_runner(plan_of(tmp_path).cfg, tests=tests)
    runner.logger.addHandler(logging.StreamHandler(FullDisk()))
    runner.logger.warning('a line')
    assert 'Traceback' not in capsys.readouterr().err


def test_the_config_of_a_run_stays_whole_on_a_full_disk(tmp_path, monkeypatch):
    source, written = tmp_path / 'tiny.py', tmp_path / 'run' / 'tiny.py'
    plan_of(written.parent).cfg.dump(source)
    launch.build_runner(Config.fromfile(source))
    before = written.read_text()
    assert Config.fromfile(written).work_dir == str(written.parent)

    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr('os.fsync', full)
    plan_of(written.parent, point='before_train', words='other').cfg.dump(source)
    with pytest.raises(UserError, match='No space left'):
        launch.build_runner(Config.fromfile(source))
    assert written.read_text() == before
