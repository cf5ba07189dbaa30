"""What the test data of a config says about a model in use: its pipeline and its palette."""

from typing import Any

from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope

from attnpool_backbones.command_line import UserError
from attnpool_backbones.config_types import type_name

__all__ = ['array_pipeline', 'tested_dataset']

_LOADERS = ('LoadImageFromFile',)
_TRUTH = ('LoadAnnotations', 'LoadPanopticAnnotations')


def tested_dataset(cfg: Config) -> dict[str, Any]:
    """Returns the config of the data set that a model is tested on, without what wraps it.

    Raises:
        UserError: If there is none.
    """
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader')
    if loader is None:
        raise UserError(
            f'{cfg.filename} has no test_dataloader, which tells how images are prepared'
        )
    dataset = loader.dataset
    while dataset.get('dataset') is not None or dataset.get('datasets'):
        dataset = dataset.get('dataset') or dataset.datasets[0]
    return dataset


def array_pipeline(cfg: Config) -> Compose:
    """Builds the test pipeline so that it starts from an array, and without a ground truth."""
    steps = []
    for step in tested_dataset(cfg).pipeline:
        if type_name(step) in _LOADERS:
            steps.append(dict(type='LoadImageFromNDArray'))
        elif type_name(step) not in _TRUTH:
            steps.append(step)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return Compose(steps)
