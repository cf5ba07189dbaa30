"""Registers the models of test-time augmentation without importing mmdet or mmseg for them."""

from typing import TYPE_CHECKING, Any

from attnpool_backbones.registry import MODELS

if TYPE_CHECKING:
    from attnpool_backbones.engine.instance_tta import InstanceTTAModel
    from attnpool_backbones.engine.semantic_tta import SemanticTTAModel

__all__ = ['build_instance_tta_model', 'build_semantic_tta_model']


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


@MODELS.register_module(name='SemanticTTAModel')
def build_semantic_tta_model(**options: Any) -> 'SemanticTTAModel':
    """Builds a :class:`SemanticTTAModel`.

    Args:
        **options: Arguments of mmseg's ``SegTTAModel``.

    Raises:
        ModuleNotFoundError: Without mmseg.
    """
    from attnpool_backbones.engine.semantic_tta import SemanticTTAModel

    return SemanticTTAModel(**options)
