"""The smallest training that mmengine's Runner can do, with all the randomness of a real one."""

import itertools
import random
from contextlib import AbstractContextManager, nullcontext
from unittest.mock import patch

import numpy as np
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import DATASETS, METRICS, MODELS, OPTIM_WRAPPERS
from mmengine.runner import Runner
from torch.utils.data import Dataset

EPOCHS, SAMPLES, BATCH = 4, 12, 2
EPOCH = SAMPLES // BATCH
ITERS = EPOCHS * EPOCH
RUN_NUMBERS = itertools.count()


class NoisyPoints(Dataset):
    """Points on a line; every look at one adds noise from all three generators."""

    metainfo = dict(classes=('point',))

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        noise = random.random() + np.random.rand() + torch.rand(()).item()
        x = torch.tensor([index / SAMPLES, noise / 3])
        return dict(inputs=x, target=x.sum() + 1)


class Regression(BaseModel):
    """A linear map after dropout; NaN from iteration ``nan_at`` on."""

    def __init__(self, nan_at: int | None = None) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.dropout = torch.nn.Dropout(0.3)
        self.nan_at = nan_at
        self.steps = 0

    def forward(self, inputs: list, target: list, mode: str = 'tensor') -> dict:
        error = self.layer(self.dropout(torch.stack(inputs))).squeeze(1) - torch.stack(target)
        if mode == 'predict':
            return [error]
        self.steps += 1
        scale = torch.nan if self.nan_at is not None and self.steps >= self.nan_at else 1.0
        return dict(loss_square=error.square().mean(), loss_size=scale * self.layer.weight.norm())


class ScaledOptimWrapper(AmpOptimWrapper):
    """Scales the loss as on CUDA, and computes in float32 as without mixed precision."""

    def __init__(self, **kwargs: object) -> None:
        OptimWrapper.__init__(self, **kwargs)
        self.loss_scaler = torch.amp.GradScaler('cpu')
        self._scale_update_param = None

    def optim_context(self, model: torch.nn.Module) -> AbstractContextManager:
        return nullcontext()


class MeanError(BaseMetric):
    """Mean absolute error."""

    default_prefix = 'tiny'

    def process(self, data_batch: object, data_samples: list) -> None:
        self.results += [float(value.abs().mean()) for value in data_samples]

    def compute_metrics(self, results: list) -> dict[str, float]:
        return dict(error=sum(results) / len(results))


class Killed(Exception):
    """What a kill leaves behind: nothing after it is run."""


class KillInTraining(Hook):
    """Stops in an iteration, by its number from 1 on."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def before_train_iter(self, runner: Runner, batch_idx: int, **_: object) -> None:
        if runner.iter + 1 == self.iteration:
            raise Killed


def register() -> None:
    ours = (
        (DATASETS, NoisyPoints), (METRICS, MeanError), (MODELS, Regression),
        (OPTIM_WRAPPERS, ScaledOptimWrapper),
    )  # fmt: skip
    for registry, cls in ours:
        if cls.__name__ not in registry.module_dict:
            registry.register_module(module=cls)


register()


def make_config(
    work_dir: str,
    by_epoch: bool = True,
    workers: int = 0,
    persistent: bool = False,
    hooks: tuple = (),
    checkpoint: dict | None = None,
    nan_at: int | None = None,
    seed: int | None = 3,
) -> Config:
    """Config of the tiny training.

    Args:
        work_dir: Where checkpoints go.
        by_epoch: Epochs, or iterations with an infinite sampler. Default: True.
        workers: Loading processes. Default: 0.
        persistent: Whether these live on between epochs. Default: False.
        hooks: Custom hooks. Default: none.
        checkpoint: Arguments of the checkpoint hook. Default: None.
        nan_at: First step with a broken loss. Default: None.
        seed: Seed of the run. Default: 3.

    Returns:
        Ready for ``Runner.from_cfg``.
    """
    train_cfg = (
        dict(type='attnpool_backbones.ResumableEpochBasedTrainLoop', max_epochs=EPOCHS)
        if by_epoch
        else dict(type='attnpool_backbones.ResumableIterBasedTrainLoop', max_iters=ITERS)
    )
    saving = dict(
        type='attnpool_backbones.SafeCheckpointHook',
        by_epoch=by_epoch,
        interval=1 if by_epoch else EPOCH,
    )
    return Config(
        dict(
            model=dict(type='Regression', nan_at=nan_at),
            work_dir=str(work_dir),
            train_dataloader=dict(
                dataset=dict(type='NoisyPoints'),
                batch_size=BATCH,
                num_workers=workers,
                persistent_workers=persistent,
                sampler=dict(
                    type='DefaultSampler' if by_epoch else 'InfiniteSampler', shuffle=True
                ),
            ),
            train_cfg=train_cfg,
            optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.05)),
            param_scheduler=[dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=ITERS)],
            default_hooks=dict(checkpoint={**saving, **(checkpoint or {})}),
            custom_hooks=list(hooks),
            randomness=dict(seed=seed),
            log_processor=dict(by_epoch=by_epoch),
            log_level='WARNING',
            default_scope='mmengine',
        )
    )


def add_validation(cfg: Config) -> None:
    """Makes a training validate after each epoch, on what it trains on, and save its best."""
    cfg.val_dataloader = dict(cfg.train_dataloader, sampler=dict(type='DefaultSampler'))
    cfg.val_cfg, cfg.val_evaluator = dict(), dict(type='MeanError')
    cfg.train_cfg.val_interval = 1 if 'max_epochs' in cfg.train_cfg else EPOCH
    cfg.default_hooks.checkpoint.update(save_best='tiny/error', rule='less')


def make_runner(name: str, cfg: Config) -> Runner:
    """Builds a Runner; every one needs its own name, under which mmengine keeps its state."""
    cfg.experiment_name = f'{name}_{next(RUN_NUMBERS)}'
    # the survey of compilers and drivers takes longer than the training
    with patch.object(Runner, '_log_env'):
        return Runner.from_cfg(cfg)
