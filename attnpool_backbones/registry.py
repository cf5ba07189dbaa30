"""Registries of the scope ``attnpool_backbones``.

``type='attnpool_backbones.PatchConvNet'`` in any mmdet or mmseg config makes mmengine import this
module and, at the first look-up, the packages named in ``locations``. Nothing has to be imported by
hand. mmengine hides errors raised while this file is imported, so it must stay trivial.
"""

from mmengine import registry as root
from mmengine.registry import Registry

SCOPE = 'attnpool_backbones'


def _child(parent: Registry, *packages: str) -> Registry:
    return Registry(
        parent.name,
        parent=parent,
        scope=SCOPE,
        locations=[f'{SCOPE}.{package}' for package in packages],
    )


MODELS = _child(
    root.MODELS,
    'backbones',
    'heads',
    'necks',
    'dense_models',
    'engine',
    'inference.exported_model',
)
HOOKS = _child(root.HOOKS, 'engine', 'reports.hook')
METRICS = _child(
    root.METRICS, 'evaluation', 'engine', 'reports.pixel_confusion', 'reports.image_confusion'
)
LOOPS = _child(root.LOOPS, 'engine')
OPTIM_WRAPPER_CONSTRUCTORS = _child(root.OPTIM_WRAPPER_CONSTRUCTORS, 'engine')
OPTIM_WRAPPERS = _child(root.OPTIM_WRAPPERS, 'engine')
STRATEGIES = _child(root.STRATEGIES, 'engine')
TRANSFORMS = _child(root.TRANSFORMS, 'datasets', 'inference.preparation')
DATASETS = _child(root.DATASETS, 'datasets')
