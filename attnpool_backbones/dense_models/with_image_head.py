"""Any detector or segmentor, with a head that learns which classes an image has."""

import copyreg
import functools
from collections.abc import Mapping
from typing import Any

from torch import nn

from attnpool_backbones.dense_models.image_head_mixins import (
    DetectorWithImageHead,
    SegmentorWithImageHead,
)
from attnpool_backbones.registry import MODELS

__all__ = ['build_with_image_head']

ASKED = {'backbone', 'neck', 'with_neck'}
"""What `extract_feat` of a model asks for that runs its backbone, then its neck, and no more."""


@MODELS.register_module(name='WithImageHead')
def build_with_image_head(
    base: str | type[nn.Module], image_head: Mapping[str, Any] | None = None, **options: Any
) -> nn.Module:
    """Builds a detector or segmentor with an image-level head on its backbone's last map.

    Names of weights, arguments and what is predicted are those of the model; the head's weights
    are ``image_head.*``. Two lines make it of any config of mmdet or mmseg::

        model = dict(
            type='attnpool_backbones.WithImageHead', base='MaskRCNN',
            image_head=dict(loss_weight=0.5))

    Each predicted sample has ``pred_tags`` (see :mod:`attnpool_backbones.dense_models.image_tags`)
    and training a loss ``loss_tags``. Test-time augmentation by ``--tta`` averages the tags of
    all views.

    Args:
        base: Type of the model, e.g. ``'MaskRCNN'``, ``'mmdet.RetinaNet'`` or ``'EncoderDecoder'``.
        image_head: Arguments of :class:`ImageTagHead`. Default: none, all by default.
        **options: Arguments of ``base``.

    Raises:
        KeyError: There is no model of that name.
        TypeError: It is neither a detector nor a segmentor, or has features of its own kind.
    """
    if isinstance(base, str):
        with MODELS.switch_scope_and_registry(None) as registry:
            found = registry.get(base)
        if found is None:
            raise KeyError(
                f"base={base!r} of WithImageHead is no registered model; write e.g. 'mmdet.{base}' "
                f"or 'mmseg.{base}'"
            )
        base = found
    return class_with_image_head(base)(image_head=image_head or {}, **options)


@functools.cache
def class_with_image_head(base: type[nn.Module]) -> type[nn.Module]:
    """Returns the subclass of a detector or segmentor that has the head."""
    # of packages of which one may be missing
    parents = {f'{cls.__module__.partition(".")[0]}.{cls.__name__}' for cls in base.__mro__}
    if 'mmdet.BaseDetector' in parents:
        mixin = DetectorWithImageHead
    elif 'mmseg.BaseSegmentor' in parents:
        mixin = SegmentorWithImageHead
    else:
        raise TypeError(
            f'base={base.__name__} of WithImageHead is neither a detector of mmdet nor a segmentor '
            'of mmseg'
        )
    if set(base.extract_feat.__code__.co_names) != ASKED:
        raise TypeError(
            f'{base.__name__} does more than running a backbone and a neck to extract features, so '
            'WithImageHead cannot tell its last map'
        )
    name = f'{base.__name__}WithImageHead'
    cls = type(name, (mixin, base), dict(__doc__=f'{base.__name__} with an image-level head.'))
    copyreg.pickle(cls, functools.partial(_reduced, base))  # no module has it
    return cls


def _reduced(base: type[nn.Module], model: nn.Module) -> tuple:
    _, _, *state = model.__reduce_ex__(2)
    return _without_state, (base,), *state


def _without_state(base: type[nn.Module]) -> nn.Module:
    cls = class_with_image_head(base)
    return cls.__new__(cls)
