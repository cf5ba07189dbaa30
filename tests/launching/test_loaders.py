"""Dataloaders of configs are made to work, and to count every image once."""

import pytest
from mmengine.config import Config

from attnpool_backbones.launching.loaders import fit_loaders

SHARED = dict(launcher='pytorch')


def loaders(**settings: object) -> Config:
    loader = dict(sampler=dict(type='DefaultSampler', shuffle=False), num_workers=2)
    return Config(dict(train_dataloader=loader, val_dataloader=loader, test_dataloader=loader,
                       **settings))  # fmt: skip


@pytest.mark.parametrize(
    ('settings', 'is_changed'),
    [({}, False), (SHARED, True), (dict(SHARED, strategy=dict(type='ShardedStrategy')), True)],
)
def test_processes_do_not_test_an_image_twice(settings, is_changed):
    cfg = loaders(**settings)
    fit_loaders(cfg)
    changed = [cfg[f'{split}_dataloader'].sampler.get('round_up') is False
               for split in ('train', 'val', 'test')]  # fmt: skip
    assert changed == [False, is_changed, is_changed]


def test_loaders_without_processes():
    cfg = Config(
        dict(val_dataloader=dict(num_workers=0, persistent_workers=True, prefetch_factor=2))
    )
    fit_loaders(cfg)
    assert cfg.val_dataloader == dict(num_workers=0, persistent_workers=False)
