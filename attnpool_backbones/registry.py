"""Registries of the scope ``attnpool_backbones``.

``type='attnpool_backbones.PatchConvNet'`` in any mmdet or mmseg config makes mmengine import this
module and, at the first look-up, the packages named in ``locations``. Nothing has to be imported by
hand. mmengine hides errors raised while this file is imported, so it must stay trivial.
"""

from mmengine.registry import DATA_SAMPLERS as ROOT_DATA_SAMPLERS
from mmengine.registry import DATASETS as ROOT_DATASETS
from mmengine.registry import HOOKS as ROOT_HOOKS
from mmengine.registry import LOOPS as ROOT_LOOPS
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as ROOT_OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.registry import OPTIM_WRAPPERS as ROOT_OPTIM_WRAPPERS
from mmengine.registry import STRATEGIES as ROOT_STRATEGIES
from mmengine.registry import TRANSFORMS as ROOT_TRANSFORMS
from mmengine.registry import Registry

SCOPE = 'attnpool_backbones'

MODELS = Registry(
    'model',
    parent=ROOT_MODELS,
    scope=SCOPE,
    locations=[
        'attnpool_backbones.backbones',
        'attnpool_backbones.heads',
        'attnpool_backbones.necks',
    ],
)

DATASETS = Registry(
    'dataset', parent=ROOT_DATASETS, scope=SCOPE, locations=['attnpool_backbones.datasets']
)
TRANSFORMS = Registry(
    'transform', parent=ROOT_TRANSFORMS, scope=SCOPE, locations=['attnpool_backbones.datasets']
)
DATA_SAMPLERS = Registry(
    'data sampler', parent=ROOT_DATA_SAMPLERS, scope=SCOPE, locations=['attnpool_backbones.engine']
)

HOOKS = Registry('hook', parent=ROOT_HOOKS, scope=SCOPE, locations=['attnpool_backbones.engine'])
LOOPS = Registry('loop', parent=ROOT_LOOPS, scope=SCOPE, locations=['attnpool_backbones.engine'])
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    'optimizer wrapper constructor',
    parent=ROOT_OPTIM_WRAPPER_CONSTRUCTORS,
    scope=SCOPE,
    locations=['attnpool_backbones.engine'],
)
OPTIM_WRAPPERS = Registry(
    'optim wrapper',
    parent=ROOT_OPTIM_WRAPPERS,
    scope=SCOPE,
    locations=['attnpool_backbones.engine'],
)
STRATEGIES = Registry(
    'strategy', parent=ROOT_STRATEGIES, scope=SCOPE, locations=['attnpool_backbones.engine']
)
