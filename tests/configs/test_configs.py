"""Every config trains a step and predicts."""

import pathlib

import pytest
import torch
from mmengine.config import Config

from attnpool_backbones.benchmark.random_batches import random_batch
from attnpool_backbones.zoo.config_models import build_config_model
from attnpool_backbones.zoo.model_matrix import COMBINATIONS

ROOT = pathlib.Path(__file__).parents[2] / 'configs'
CONFIGS = sorted(path for path in ROOT.glob('*/*.py') if path.parent.name != '_base_')


def combinations():
    """Returns all combinations; the first, a small one, of each family and head is not slow.

    Nano sizes train and evaluate in ``tests/tools/test_digit_scenes_runs.py``.
    """
    seen = set()
    cases = []
    for c in COMBINATIONS:
        if 'nano' not in c.backbone:
            slow = (c.family, c.head) in seen
            seen.add((c.family, c.head))
            marks = [pytest.mark.slow] if slow else []
            cases.append(pytest.param(c, id=c.config[:-3], marks=marks))
    return cases


@pytest.mark.parametrize('combination', combinations())
def test_trains_and_predicts(combination):
    cfg = Config.fromfile(ROOT / combination.config)
    model = build_config_model(cfg).train()
    if combination.segments:
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
    if combination.segments:
        assert predictions[0].pred_sem_seg.data.shape == (1, 40, 64)
        return
    instances = predictions[0].pred_instances
    assert instances.bboxes.shape == (len(instances), 4)
    assert ('masks' in instances) == ('mask' in combination.head)
    if 'masks' in instances:
        assert instances.masks.shape[1:] == (40, 64)


def test_every_family_has_all_heads():
    heads = {'retinanet', 'mask-rcnn', 'cascade-mask-rcnn', 'upernet', 'semantic-fpn'}
    for family in {c.family for c in COMBINATIONS}:
        of_family = [c for c in COMBINATIONS if c.family == family]
        assert {c.head for c in of_family} >= heads, family
        for head in heads:
            sizes = {c.backbone for c in of_family if c.head == head and 'nano' not in c.backbone}
            assert len(sizes) >= 2, (family, head)
        assert {c.head for c in of_family if 'nano' in c.backbone} == {'mask-rcnn', 'upernet'}
