import copy
import logging
from argparse import ArgumentParser
from collections.abc import Mapping
from operator import itemgetter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import HOOKS, PARAM_SCHEDULERS

from attnpool_backbones.command_line import UserError
from attnpool_backbones.config_files import config_root
from attnpool_backbones.launching import training_options
from attnpool_backbones.launching.launch import skip_bad_data
from attnpool_backbones.launching.safeguards import add_safeguards
from attnpool_backbones.launching.training_options import (
    add_training_arguments,
    apply_training_options,
    set_epochs,
)
from attnpool_backbones.zoo.config_names import families

BY_EPOCH = 'metaformer/retinanet_caformer-s18_fpn_1x_coco.py'
BY_ITERATION = 'metaformer/upernet_caformer-s18_8xb2-160k_ade20k-512x512.py'


def changed(words: list[str], config: str | Path = BY_EPOCH) -> Config:
    parser = ArgumentParser()
    add_training_arguments(parser)
    cfg = Config.fromfile(Path(config_root(), config))
    apply_training_options(cfg, parser.parse_args(words))
    return cfg


def test_without_flags_nothing_changes():
    assert changed([]).to_dict() == Config.fromfile(Path(config_root(), BY_EPOCH)).to_dict()


def test_schedule_keeps_its_shape():
    cfg = changed(['--epochs', '24'])
    assert cfg.train_cfg.max_epochs == 24
    steps = cfg.param_scheduler[1]
    assert (steps.milestones, steps.end) == ([16, 22], 24)
    # the warm-up counts iterations
    assert cfg.param_scheduler[0].end == 500
    assert changed(['--epochs', '1']).param_scheduler[1].milestones == [1, 1]


SCHEDULES = {
    # 300 epochs before: schedule -> the same in 30, and in 1
    'warm-up': (
        dict(type='LinearLR', start_factor=0.1, begin=0, end=5),
        (dict(begin=0, end=1), dict(begin=0, end=1)),
    ),
    'after it': (
        dict(type='CosineAnnealingLR', T_max=295, begin=5, end=300),
        (dict(begin=1, end=30, T_max=29), dict(begin=1, end=2, T_max=1)),
    ),
    'cosine': (dict(type='CosineAnnealingLR', T_max=100), (dict(T_max=10), dict(T_max=1))),
    'steps': (dict(type='StepLR', step_size=50), (dict(step_size=5), dict(step_size=1))),
    'milestones': (
        dict(type='MultiStepLR', milestones=[150, 250]),
        (dict(milestones=[15, 25]), dict(milestones=[1, 1])),
    ),
    'restarts': (
        dict(type='CosineRestartLR', periods=[200, 100], restart_weights=[1, 0.5], eta_min=0),
        (dict(periods=[20, 10]), dict(periods=[1, 1])),
    ),
    'one cycle': (
        dict(type='OneCycleLR', eta_max=0.1, total_steps=300),
        (dict(total_steps=30), dict(total_steps=1)),
    ),
    'iterations': (
        dict(type='StepLR', step_size=50, by_epoch=False),
        (dict(step_size=50), dict(step_size=50)),
    ),
}


def built(schedule: Mapping) -> object:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    return PARAM_SCHEDULERS.build(dict(schedule, optimizer=optimizer))


@pytest.mark.parametrize('name', SCHEDULES)
@pytest.mark.parametrize(('epochs', 'which'), [(30, 0), (1, 1)])
def test_every_schedule_is_scaled(name, epochs, which):
    schedule, expected = SCHEDULES[name]
    cfg = Config(dict(train_cfg=dict(max_epochs=300), param_scheduler=[schedule]))
    set_epochs(cfg, epochs)
    (found,) = cfg.param_scheduler
    assert found == {**schedule, **expected[which]}
    scheduler = built(found)
    for _ in range(epochs - 1):
        scheduler.optimizer.step()
        scheduler.step()


@pytest.mark.parametrize(('epochs', 'begin', 'intervals'), [(30, 10, [(20, 1)]), (1, 1, [(1, 1)])])
def test_validations_are_moved_along(epochs, begin, intervals):
    loop = dict(max_epochs=300, val_begin=100, val_interval=10, dynamic_intervals=[(200, 1)])
    cfg = Config(dict(train_cfg=loop))
    set_epochs(cfg, epochs)
    assert cfg.train_cfg.val_begin == begin
    assert list(map(tuple, cfg.train_cfg.dynamic_intervals)) == intervals


@pytest.fixture(scope='module')
def trainings() -> list[dict]:
    """Returns the loops and schedules of all configs that count epochs, each once."""
    found = {}
    root = Path(config_root())
    for family in families(root):
        for path in sorted((root / family).glob('*.py')):
            cfg = Config.fromfile(path)
            if 'max_epochs' in cfg.train_cfg:
                keys = dict(train_cfg=cfg.train_cfg, param_scheduler=cfg.param_scheduler)
                found[str(keys)] = keys
    return list(found.values())


@pytest.mark.parametrize('epochs', [1, 3, 30])
def test_schedules_of_all_configs_can_be_built(epochs, trainings):
    assert len(trainings) > 2
    for training in trainings:
        cfg = Config(copy.deepcopy(training))
        set_epochs(cfg, epochs)
        for schedule in cfg.param_scheduler:
            schedule.pop('convert_to_iter_based', None)
            built(schedule)


def test_numbers():
    cfg = changed(['--lr', '0.5', '--freeze', '2', '--workers', '0', '--batch', '7'])
    assert cfg.optim_wrapper.optimizer.lr == 0.5
    assert cfg.model.backbone.frozen_stages == 2
    assert cfg.train_dataloader.batch_size == 7
    for split in ('train', 'val', 'test'):
        loader = cfg[f'{split}_dataloader']
        assert loader.num_workers == 0 and not loader.persistent_workers


@pytest.mark.parametrize('config, metric', [(BY_EPOCH, 'coco/bbox_mAP'), (BY_ITERATION, 'mIoU')])
def test_hooks(config, metric):
    cfg = changed(['--ema', '--patience', '3', '--save-best'], config)
    hooks = {hook['type']: hook for hook in cfg.custom_hooks}
    assert hooks['EMAHook']['ema_type'] == 'MomentumAnnealingEMA'
    assert hooks['EarlyStoppingHook'] == dict(
        type='EarlyStoppingHook', monitor=metric, rule='greater', min_delta=1e-6, patience=3
    )
    assert cfg.default_hooks.checkpoint.save_best == metric
    own = changed(['--save-best', 'coco/segm_mAP'])
    assert own.default_hooks.checkpoint.save_best == 'coco/segm_mAP'


def derived(folder: Path, hooks: list[dict]) -> Path:
    path = folder / 'derived.py'
    path.write_text(f'_base_ = {str(config_root() / BY_EPOCH)!r}\ncustom_hooks = {hooks!r}\n')
    return path


@pytest.mark.parametrize('scope', ['', 'mmengine.'])
def test_hooks_that_a_config_has_are_not_doubled(scope, tmp_path):
    average = dict(type=f'{scope}EMAHook', ema_type='ExpMomentumEMA', momentum=0.0002)
    other = dict(type='NumClassCheckHook')
    stopping = dict(type=f'{scope}EarlyStoppingHook', monitor='coco/segm_mAP', patience=9)
    config = derived(tmp_path, [average, stopping, other])
    cfg = changed(['--ema', '--patience', '3', '--keep-memory'], config)
    kept, also_kept, new, _ = cfg.custom_hooks
    assert (kept, also_kept) == (average, other)
    assert (new.monitor, new.patience) == ('coco/bbox_mAP', 3)


def test_the_config_of_a_run_trains_again_with_the_same_flags(tmp_path):
    words = ['--ema', '--patience', '3', '--keep-memory']
    hooks = []
    config = derived(tmp_path, [])
    for number in range(2):
        cfg = changed(words, config)
        add_safeguards(cfg)
        skip_bad_data(cfg, 3)
        hooks.append(sorted(map(dict, cfg.custom_hooks), key=itemgetter('type')))
        config = tmp_path / f'{number}.py'
        cfg.dump(config)
    assert hooks[0] == hooks[1]


@pytest.mark.parametrize(
    'config, scores, stops_after',
    [
        (BY_EPOCH, [0.3, 0.301, 0.302, 0.303, 0.304], None),
        (BY_EPOCH, [0.3, 0.34, 0.33, 0.34, 0.4], 4),
        (BY_EPOCH, [0.0, 0.0, 0.0], 3),
        (BY_EPOCH, [0.3, 0.2, 0.301, 0.3, 0.302], None),
        (BY_ITERATION, [40.01, 40.02, 40.03, 40.04], None),
        (BY_ITERATION, [40.01, 40.01, 40.01, 40.04], 3),
    ],
)
def test_patience_counts_what_was_not_better(config, scores, stops_after):
    cfg = changed(['--patience', '2'], config)
    add_safeguards(cfg)
    (stopping,) = (hook for hook in cfg.custom_hooks if 'EarlyStopping' in hook['type'])
    hook, loop = HOOKS.build(stopping), SimpleNamespace(stop_training=False)
    hub = SimpleNamespace(runtime_info={}, update_info=lambda *_: None)
    runner = SimpleNamespace(train_loop=loop, logger=logging.getLogger(), message_hub=hub)
    stopped = []
    for score in scores:
        hook.after_val_epoch(runner, {hook.monitor: score})
        stopped.append(loop.stop_training)
    assert stopped == [n + 1 >= (stops_after or 99) for n in range(len(scores))]


def test_backends(monkeypatch):
    monkeypatch.setattr(
        training_options, 'find_spec', lambda name: name if name == 'tensorboard' else None
    )
    backends = changed(['--tensorboard']).visualizer.vis_backends
    assert [backend['type'] for backend in backends] == ['LocalVisBackend', 'TensorboardVisBackend']
    with pytest.raises(UserError, match='--wandb: wandb is not installed'):
        changed(['--wandb'])


def test_mlflow_has_a_data_base_beside_the_runs_or_the_named_server(monkeypatch):
    # mmengine's default, plain files, raises under MLflow 3.7 and later
    monkeypatch.setattr(training_options, 'find_spec', lambda name: name)
    monkeypatch.delenv('MLFLOW_TRACKING_URI', raising=False)
    backend = changed(['--mlflow']).visualizer.vis_backends[-1]
    assert backend['type'] == 'MLflowVisBackend'
    assert backend['tracking_uri'] == f'sqlite:///{Path("work_dirs/mlflow.db").absolute()}'
    monkeypatch.setenv('MLFLOW_TRACKING_URI', 'http://tracking:5000')
    backend = changed(['--mlflow']).visualizer.vis_backends[-1]
    assert backend['tracking_uri'] == 'http://tracking:5000'
    assert 'artifact_location' not in backend


def test_epochs_do_not_fit_iterations():
    with pytest.raises(UserError, match=r'counts iterations \(160000\)'):
        changed(['--epochs', '3'], BY_ITERATION)
