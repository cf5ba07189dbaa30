"""Every config trains a step and predicts."""

import pytest
import torch
from mmengine.config import Config

from attnpool_backbones.benchmark.random_batches import random_batch
from attnpool_backbones.config_files import config_root
from attnpool_backbones.launching.config_models import build_config_model
from attnpool_backbones.zoo.config_names import families, list_configs
from tests.configs.recipes import RECIPES

ROOT = config_root()
CONFIGS = list_configs(ROOT)


def cases() -> list:
    """Returns all configs; the first, a small one, of each family and head is not slow.

    Nano sizes train and evaluate in ``tests/tools/test_digit_scenes_runs.py``.
    """
    seen = set()
    found = []
    for config in (recipe.config for recipe in RECIPES):
        if not config.is_nano:
            marks = [pytest.mark.slow] if (config.family, config.head) in seen else []
            seen.add((config.family, config.head))
            found.append(pytest.param(config, id=config.path[:-3], marks=marks))
    return found


@pytest.mark.parametrize('config', cases())
def test_trains_and_predicts(config):
    cfg = Config.fromfile(ROOT / config.path)
    model = build_config_model(cfg).train()
    if config.segments:
        model.data_preprocessor.size = (64, 64)
    batch = model.data_preprocessor(random_batch(cfg, (64, 64), batch=2), training=True)
    loss, log = model.parse_losses(model(**batch, mode='loss'))
    loss.backward()
    assert log['loss'].isfinite() and log['loss'] > 0
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    with torch.no_grad():
        predictions = model.eval().test_step(random_batch(cfg, (40, 64)))
    assert len(predictions) == 1
    if config.segments:
        assert predictions[0].pred_sem_seg.data.shape == (1, 40, 64)
        return
    instances = predictions[0].pred_instances
    assert instances.bboxes.shape == (len(instances), 4)
    assert ('masks' in instances) == ('mask' in config.head)
    if 'masks' in instances:
        assert instances.masks.shape[1:] == (40, 64)


def test_every_family_has_all_heads():
    heads = {'retinanet', 'mask-rcnn', 'cascade-mask-rcnn', 'upernet', 'semantic-fpn'}
    assert {config.family for config in CONFIGS} == set(families(ROOT))
    for family in families(ROOT):
        own = [config for config in CONFIGS if config.family == family]
        assert {config.head for config in own} >= heads, family
        for head in heads:
            sizes = {c.backbone for c in own if c.head == head and not c.is_nano}
            assert len(sizes) >= 2, (family, head)
        assert {config.head for config in own if config.is_nano} == {'mask-rcnn', 'upernet'}
