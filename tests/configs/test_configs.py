"""Every config builds; the smaller ones train and predict."""

import pathlib

import pytest
from mmengine.config import Config

from tests.configs.models import build_model, make_batch, predict, train_step

ROOT = pathlib.Path(__file__).parents[2] / 'configs'
CONFIGS = sorted(path for path in ROOT.glob('*/*.py') if path.parent.name != '_base_')
SMALL = [path for path in CONFIGS if any(size in path.name for size in ('-nano', '-s60'))]


def identify(path):
    return path.stem


@pytest.mark.parametrize('path', CONFIGS, ids=identify)
def test_builds(path):
    cfg = Config.fromfile(path)
    model = build_model(cfg, device='meta')
    assert cfg.train_dataloader.batch_size >= 1
    assert sum(p.numel() for p in model.parameters()) > 0
    name = path.stem
    assert (cfg.default_scope == 'mmseg') == name.startswith(('upernet', 'semantic-fpn'))
    assert cfg.train_cfg.type.endswith('TrainLoop') and cfg.optim_wrapper.optimizer.lr > 0


@pytest.mark.parametrize('path', SMALL, ids=identify)
def test_trains_and_predicts(path):
    cfg = Config.fromfile(path)
    model = build_model(cfg)
    if model.data_preprocessor.__class__.__name__ == 'SegDataPreProcessor':
        model.data_preprocessor.size = (96, 96)
    batch = make_batch(cfg, (96, 96))
    log = train_step(model, batch)
    assert log['loss'].isfinite() and log['loss'] > 0
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    predictions = predict(model, make_batch(cfg, (70, 96), batch=1))
    assert len(predictions) == 1
    if cfg.default_scope == 'mmseg':
        assert predictions[0].pred_sem_seg.data.shape == (1, 70, 96)
    else:
        assert predictions[0].pred_instances.masks.shape[1:] == (70, 96)


def test_there_are_configs():
    assert len(SMALL) >= 4 and len(CONFIGS) > len(SMALL)
