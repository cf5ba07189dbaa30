"""Registers the model of test-time augmentation without importing mmdet, which it needs."""

from typing import TYPE_CHECKING, Any

from attnpool_backbones.registry import MODELS

if TYPE_CHECKING:
    from attnpool_backbones.engine.instance_tta import InstanceTTAModel

__all__ = ['build_instance_tta_model']


@MODELS.register_module(name='InstanceTTAModel')
def build_instance_tta_model(**options: Any) -> 'InstanceTTAModel':
    """Builds an :class:`InstanceTTAModel`.

    Args:
        **options: Its arguments.

    Raises:
        ModuleNotFoundError: Without mmdet.
    """
    from attnpool_backbones.engine.instance_tta import InstanceTTAModel

    return InstanceTTAModel(**options)
