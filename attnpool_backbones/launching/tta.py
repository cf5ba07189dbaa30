"""``--tta``: test-time augmentation, with a default for detection."""

from copy import copy, deepcopy

from mmengine.config import Config, ConfigDict

from attnpool_backbones.command_line import UserError
from attnpool_backbones.config_tasks import recognise_dense_task
from attnpool_backbones.config_types import type_name
from attnpool_backbones.datasets.building import innermost

__all__ = ['enable_tta']

META_KEYS = (
    'img_id',
    'img_path',
    'ori_shape',
    'img_shape',
    'scale_factor',
    'flip',
    'flip_direction',
)


def enable_tta(cfg: Config) -> None:
    """Wraps the model and the test pipeline for test-time augmentation.

    Detection has a default, horizontal flip, when the config does not describe its own;
    segmentation takes scales and flips from the config's ``tta_pipeline``.

    Args:
        cfg: The whole config, changed in place.

    Raises:
        UserError: If a segmentation config has no ``tta_pipeline``.
    """
    datasets = list(innermost(cfg.test_dataloader.dataset))
    if recognise_dense_task(cfg, '--tta') == 'mmdet':
        cfg.setdefault(
            'tta_model',
            ConfigDict(
                type='DetTTAModel',
                tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100),
            ),
        )
        if type_name(cfg.tta_model) == 'DetTTAModel':
            cfg.tta_model.type = 'attnpool_backbones.InstanceTTAModel'
        cfg.setdefault('tta_pipeline', flip_pipeline(datasets[0].pipeline))
    elif 'tta_pipeline' not in cfg:
        raise UserError(
            f'--tta: {cfg.filename} has no tta_pipeline; '
            'configs/_base_/datasets/ade20k_512x512.py shows one'
        )
    else:
        cfg.setdefault('tta_model', ConfigDict(type='SegTTAModel'))
        if type_name(cfg.tta_model) == 'SegTTAModel':
            cfg.tta_model.type = 'attnpool_backbones.SemanticTTAModel'
    # `**` would make classes of the names in a config of pure Python, which cannot be written
    whole = copy(cfg.tta_model)
    whole.module = cfg.model
    cfg.model = whole
    for dataset in datasets:
        dataset.pipeline = cfg.tta_pipeline


def flip_pipeline(pipeline: list) -> list:
    """Turns a detection test pipeline into one that gives an image and its mirror image."""
    packing = deepcopy(pipeline[-1])
    packing.meta_keys = META_KEYS
    flips = [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)]
    return [*deepcopy(pipeline[:-1]), ConfigDict(type='TestTimeAug', transforms=[flips, [packing]])]
