"""What a config is for: detection, segmentation or classification."""

from mmengine.config import Config

from attnpool_backbones.command_line import UserError

__all__ = ['NEEDS', 'recognise_dense_task', 'recognise_task']

NEEDS = {'mmdet': 'det', 'mmseg': 'seg', 'mmengine': 'train'}
"""Scope of a config -> what it needs; classifiers need no library but mmengine."""


def recognise_task(cfg: Config) -> str:
    """Tells detection, segmentation and classification apart.

    Args:
        cfg: The whole config.

    Returns:
        The library that serves it, ``'mmdet'``, ``'mmseg'`` or, for image classifiers,
        ``'mmengine'``.

    Raises:
        UserError: If ``default_scope`` is none of them.
    """
    scope = cfg.get('default_scope')
    if scope not in NEEDS:
        raise UserError(
            f'default_scope is {scope!r} in {cfg.filename}, but has to be '
            "'mmdet' (detection), 'mmseg' (segmentation) or 'mmengine' (classification)"
        )
    return scope


def recognise_dense_task(cfg: Config, what: str) -> str:
    """Tells detection from segmentation, for what an image classifier has nothing of.

    Args:
        cfg: The whole config.
        what: What is asked for, for the message.

    Returns:
        ``'mmdet'`` or ``'mmseg'``.

    Raises:
        UserError: The config is that of a classifier, or of nothing known.
    """
    task = recognise_task(cfg)
    if task == 'mmengine':
        raise UserError(
            f'{what} is for detectors and segmentors; {cfg.filename} is an image classifier'
        )
    return task
