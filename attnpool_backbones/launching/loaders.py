"""Dataloaders of a config that torch would refuse, though it is plain what they mean."""

from collections.abc import Mapping, Sequence

from mmengine.config import Config

from attnpool_backbones.command_line import UserError
from attnpool_backbones.config_types import type_name
from attnpool_backbones.datasets.config_paths import metrics_of

__all__ = ['fit_loaders', 'missing_settings']

IOU_METRICS = ('mIoU', 'mDice', 'mFscore')


def fit_loaders(cfg: Config) -> None:
    """Drops what needs loading processes from dataloaders that have none.

    Several processes share the images of a test as they are, without doing some twice so that all
    have as many: where images are left out, what was done twice would be scored twice.

    Args:
        cfg: The whole config, changed in place.
    """
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        if isinstance(loader, Mapping) and loader.get('num_workers', 0) == 0:
            if loader.get('persistent_workers'):
                loader['persistent_workers'] = False
            loader.pop('prefetch_factor', None)
        sampler = loader.get('sampler') if isinstance(loader, Mapping) else None
        is_shared = cfg.get('launcher', 'none') != 'none'
        if split != 'train' and is_shared and type_name(sampler) == 'DefaultSampler':
            sampler['round_up'] = False


def missing_settings(cfg: Config, splits: Sequence[str]) -> None:
    """Checks that what belongs together is there: dataloader, loop, optimizer, evaluator.

    Args:
        cfg: The whole config.
        splits: Which of 'train', 'val' and 'test' the run reads.

    Raises:
        UserError: Naming what is missing.
    """
    partners = {
        'train': ('train_dataloader', 'train_cfg', 'optim_wrapper'),
        'val': ('val_dataloader', 'val_cfg', 'val_evaluator'),
        'test': ('test_dataloader', 'test_cfg', 'test_evaluator'),
    }
    for split in splits:
        there = [key for key in partners[split] if cfg.get(key) is not None]
        lacking = [key for key in partners[split] if key not in there]
        if lacking and (there or split != 'val'):
            raise UserError(
                f'{cfg.filename} has {", ".join(there) or "nothing"} without {", ".join(lacking)}'
            )
        for metric in metrics_of(cfg.get(f'{split}_evaluator')):
            # mmseg looks at these names after the first validation
            asked = metric.get('iou_metrics') or () if isinstance(metric, Mapping) else ()
            wrong = [name for name in asked if name not in IOU_METRICS]
            if wrong and not isinstance(asked, str):
                raise UserError(
                    f'{split}_evaluator.iou_metrics of {cfg.filename} has {wrong[0]!r}, which is '
                    f'none of {", ".join(IOU_METRICS)}'
                )
