"""Exported files score on digit scenes what their models do, for every family under every head."""

import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import DefaultScope
from mmengine.runner import Runner, set_random_seed
from torch import nn

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')

from attnpool_backbones.datasets.digit_scenes import generate
from attnpool_backbones.zoo.config_models import build_config_model
from tests.export.models import FAMILIES, HEADS, nano_config
from tests.export.test_export import compare_file

SIDE = 64
STEPS = 100
NEAR = 0.1
"""Percent that a metric of a file may differ by."""
LEAST = {'coco/bbox_mAP': 1.0, 'coco/segm_mAP': 1.0, 'mIoU': 30.0}
"""Percent below which a metric says nothing: background everywhere has an mIoU of 8, and segmentors
reach 42 and more."""


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp('metrics') / 'digit_scenes'
    generate(root, train=8, val=1, size=(SIDE, SIDE))
    return root


def on_scenes(cfg: Config, root) -> Config:
    """Points a config at small scenes, on the train split of which it is tested too."""
    cfg.train_dataloader.batch_size = 4
    if 'size' in cfg.model.data_preprocessor:
        # else batches of the training would be padded to the config's 192 pixels: batch norms would
        # learn the statistics of padding, and the segmentor find nothing in scenes without it
        cfg.model.data_preprocessor.size = (SIDE, SIDE)
    for split in ('train', 'test'):
        loader = cfg[f'{split}_dataloader']
        loader.num_workers, loader.persistent_workers = 0, False
        loader.dataset.data_root = str(root)
        loader.dataset.data_prefix = copy.deepcopy(cfg.train_dataloader.dataset.data_prefix)
        for step in loader.dataset.pipeline:
            if step.type == 'Resize' and 'scale' in step:
                step.scale = (SIDE, SIDE)
    if 'ann_file' in cfg.test_evaluator:
        cfg.test_dataloader.dataset.ann_file = cfg.train_dataloader.dataset.ann_file
        cfg.test_evaluator.ann_file = str(root / cfg.train_dataloader.dataset.ann_file)
        if not (cfg.model.get('roi_head') or {}).get('mask_head'):
            cfg.test_evaluator.metric = ['bbox']
    return cfg


def trained(cfg: Config, steps: int) -> nn.Module:
    """Trains a model for so many steps of one cycle of the learning rate."""
    set_random_seed(0)
    model = build_config_model(cfg).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
    done = 0
    while done < steps:
        for batch in loader:
            data = model.data_preprocessor(batch, True)
            loss, _ = model.parse_losses(model(**data, mode='loss'))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5)
            optimizer.step()
            schedule.step()
            done += 1
            if done == steps:
                break
    return model.eval()


def score(model: nn.Module, cfg: Config) -> dict[str, float]:
    """Evaluates a model, or a file in its place, as a test does; in percent."""
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        loader = Runner.build_dataloader(cfg.test_dataloader, seed=0)
        evaluator = Evaluator(cfg.test_evaluator)
        evaluator.dataset_meta = loader.dataset.metainfo
        with torch.inference_mode():
            for batch in loader:
                evaluator.process(model.test_step(batch), batch)
        found = evaluator.evaluate(len(loader.dataset))
    return {
        key: value * (100 if key.startswith('coco/') else 1)
        for key, value in found.items()
        if key in LEAST
    }


@pytest.mark.slow
@pytest.mark.parametrize('head', HEADS)
@pytest.mark.parametrize('family', FAMILIES)
def test_file_scores_what_the_model_does(family, head, scenes):
    cfg = on_scenes(nano_config(family, head), scenes)
    model = trained(cfg, STEPS)
    exported, _ = compare_file(cfg, model, only=(SIDE, SIDE))
    before, after = score(model, cfg), score(exported, cfg)
    assert before and all(before[key] >= LEAST[key] for key in before), before
    assert after == pytest.approx(before, abs=NEAR)
