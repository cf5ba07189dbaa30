"""Real configs on a handful of digit scenes, with and without an image-level head."""

import itertools
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from mmengine.config import Config, ConfigDict
from mmengine.hooks import Hook
from mmengine.runner import Runner

from attnpool_backbones.checkpoints.door import open_door
from attnpool_backbones.config_files import config_root

CONFIGS = {
    'retinanet': 'poolformer/retinanet_poolformer-s12_fpn_1x_coco.py',
    'faster-rcnn': 'attn_resnet/faster-rcnn_sge-resnet50_fpn_2x_coco.py',
    'mask-rcnn': 'patchconvnet/mask-rcnn_patchconvnet-nano_slim-fpn_digit-scenes.py',
    'cascade-rcnn': 'attn_resnet/cascade-rcnn_sge-resnet50_fpn_20e_coco.py',
    'upernet': 'patchconvnet/upernet_patchconvnet-nano_slim_digit-scenes.py',
    'semantic-fpn': 'poolformer/semantic-fpn_poolformer-s12_8xb4-40k_ade20k-512x512.py',
}
"""Head -> a config of it."""
SIDE, ITERATIONS = 64, 2
NUMBERS = itertools.count()


class LossRecord(Hook):
    """Keeps the losses of every iteration."""

    def __init__(self) -> None:
        self.losses: list[dict[str, torch.Tensor]] = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.losses.append({name: value.detach().clone() for name, value in outputs.items()})


def make_config(
    head: str, scenes: Path, work_dir: Path, image_head: dict | None = None, **model: Any
) -> Config:
    """Config of two iterations on digit scenes.

    Args:
        head: A key of :data:`CONFIGS`.
        scenes: Folder of the scenes.
        work_dir: Of the run.
        image_head: Arguments of the image-level head; None for none.
        **model: Further settings of the model.
    """
    cfg = Config.fromfile(config_root() / CONFIGS[head])
    segments = cfg.default_scope == 'mmseg'
    kind = 'semantic' if segments else 'instance'
    digits = Config.fromfile(config_root() / f'_base_/datasets/digit_scenes_{kind}.py')
    for split in ('train', 'val'):
        loader = digits[f'{split}_dataloader']
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        loader.dataset.data_root = str(scenes)
        loader.sampler.type = 'DefaultSampler'
        for step in loader.dataset.pipeline:
            if 'scale' in step:
                step.scale = (SIDE, SIDE)
    set_classes(cfg.model, 11 if segments else 10)
    cfg.model.backbone.init_cfg = None
    cfg.model.backbone.pop('frozen_stages', None)
    if cfg.model.backbone.type.endswith('AttnResNet'):
        cfg.model.backbone.arch = dict(depths=(1, 1, 1, 1), attention='sge')
    if segments:
        cfg.model.data_preprocessor.size = (SIDE, SIDE)
        set_norms(cfg.model)
    cfg.model.update(model)
    if image_head is not None:
        cfg.model.update(
            type='attnpool_backbones.WithImageHead', base=cfg.model.type, image_head=image_head
        )
    return Config(
        dict(
            model=cfg.model,
            work_dir=str(work_dir),
            train_dataloader=digits.train_dataloader,
            val_dataloader=digits.val_dataloader,
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=ITERATIONS, val_begin=10),
            val_cfg=dict(type='ValLoop'),
            val_evaluator=[
                dict(type='attnpool_backbones.ImageTagMetric'),
                dict(type='attnpool_backbones.LocalisationMetric'),
            ],
            optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-4), clip_grad=dict(max_norm=1.0)),
            default_hooks=dict(checkpoint=None, logger=None),
            randomness=dict(seed=0),
            log_level='ERROR',
            default_scope=cfg.default_scope,
            experiment_name=f'tagged_{next(NUMBERS)}',
        )
    )


def set_classes(entry: Any, classes: int) -> None:
    """Gives every head of a config so many classes."""
    if isinstance(entry, (list, tuple)):
        for value in entry:
            set_classes(value, classes)
    elif isinstance(entry, ConfigDict):
        if 'num_classes' in entry:
            entry.num_classes = classes
        for value in entry.values():
            set_classes(value, classes)


def set_norms(entry: Any) -> None:
    """Makes synchronised batch norms those of one process."""
    if isinstance(entry, (list, tuple)):
        for value in entry:
            set_norms(value)
    elif isinstance(entry, ConfigDict):
        if entry.get('type') == 'SyncBN':
            entry.type = 'BN'
        for value in entry.values():
            set_norms(value)


def build(cfg: Config) -> tuple[Runner, LossRecord]:
    """Builds a Runner that records its losses."""
    open_door()
    # the survey of compilers and drivers takes longer than the training
    with patch.object(Runner, '_log_env'):
        runner = Runner.from_cfg(cfg)
    record = LossRecord()
    runner.register_hook(record)
    return runner, record
