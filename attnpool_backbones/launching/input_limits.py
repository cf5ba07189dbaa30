"""Every pipeline of a run begins with a look at the sizes of what it will load."""

from mmengine.config import Config

from attnpool_backbones.config_types import type_name
from attnpool_backbones.datasets.building import innermost
from attnpool_backbones.datasets.limits import MAX_PIXELS, InputLimits

__all__ = ['limit_inputs']


def limit_inputs(cfg: Config) -> None:
    """Puts :class:`InputLimits` before the pipelines of all data sets.

    Args:
        cfg: The whole config, changed in-place. Its setting ``max_pixels`` is the limit. Default:
            2**28.
    """
    name = InputLimits.__name__
    step = dict(type=f'attnpool_backbones.{name}', max_pixels=cfg.get('max_pixels') or MAX_PIXELS)
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader') or {}
        for dataset in innermost(loader.get('dataset') or {}):
            pipeline = dataset.get('pipeline')
            if pipeline and type_name(pipeline[0]) != name:
                dataset['pipeline'] = [dict(step), *pipeline]
