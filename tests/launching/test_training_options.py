from argparse import ArgumentParser
from pathlib import Path

import pytest
from mmengine.config import Config

from attnpool_backbones.config_files import config_root
from attnpool_backbones.launching import training_options
from attnpool_backbones.launching.errors import PreflightError
from attnpool_backbones.launching.training_options import (
    add_training_arguments,
    apply_training_options,
)

BY_EPOCH = 'metaformer/retinanet_caformer-s18_fpn_1x_coco.py'
BY_ITERATION = 'metaformer/upernet_caformer-s18_8xb2-160k_ade20k-512x512.py'


def changed(words: list[str], config: str = BY_EPOCH) -> Config:
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
        type='EarlyStoppingHook', monitor=metric, rule='greater', patience=3
    )
    assert cfg.default_hooks.checkpoint.save_best == metric
    own = changed(['--save-best', 'coco/segm_mAP'])
    assert own.default_hooks.checkpoint.save_best == 'coco/segm_mAP'


def test_backends(monkeypatch):
    monkeypatch.setattr(
        training_options, 'find_spec', lambda name: name if name == 'tensorboard' else None
    )
    backends = changed(['--tensorboard']).visualizer.vis_backends
    assert [backend['type'] for backend in backends] == ['LocalVisBackend', 'TensorboardVisBackend']
    with pytest.raises(PreflightError, match='--wandb: wandb is not installed'):
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
    with pytest.raises(PreflightError, match=r'counts iterations \(160000\)'):
        changed(['--epochs', '3'], BY_ITERATION)
