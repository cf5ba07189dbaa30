"""``configs/_base_``: every file is whole; those much alike differ only where it says here."""

import re

import pytest
from mmengine.config import Config

from attnpool_backbones.config_files import config_root

BASES = config_root() / '_base_'
FILES = sorted(BASES.rglob('*.py'))
MASKS = {
    'data_preprocessor.pad_mask',
    'roi_head.mask_roi_extractor',
    'roi_head.mask_head',
}
SAMPLES = 'roi_head.{}_roi_extractor.roi_layer.sampling_ratio'
OF_2019 = {
    'rpn_head.loss_bbox',
    SAMPLES.format('bbox'),
    SAMPLES.format('mask'),
    'train_cfg.rpn.allowed_border',
    'train_cfg.rpn_proposal.max_per_img',
    'test_cfg.rpn',
}
CASCADE = {
    'type',
    'rpn_head.loss_bbox',
    'train_cfg.rpn.allowed_border',
    'train_cfg.rpn_proposal.max_per_img',
    'train_cfg.rcnn',
}
MODELS = {
    ('mask-rcnn_fpn', 'faster-rcnn_fpn'): {'type'} | MASKS,
    ('mask-rcnn_slim-fpn', 'faster-rcnn_slim-fpn'): {'type'} | MASKS,
    ('mask-rcnn_fpn_2019', 'faster-rcnn_fpn_2019'): {'type'} | MASKS,
    ('cascade-mask-rcnn_fpn', 'cascade-rcnn_fpn'): MASKS,
    ('cascade-mask-rcnn_fpn_2019', 'cascade-rcnn_fpn_2019'): MASKS,
    ('mask-rcnn_fpn', 'mask-rcnn_fpn_2019'): OF_2019 | {'roi_head.bbox_head.loss_bbox'},
    ('cascade-mask-rcnn_fpn', 'cascade-mask-rcnn_fpn_2019'): {
        *(SAMPLES.format(part) for part in ('bbox', 'mask')),
        'train_cfg.rcnn',
        'test_cfg.rpn',
    },
    ('mask-rcnn_fpn', 'cascade-mask-rcnn_fpn'): CASCADE
    | {f'roi_head.{key}' for key in ('type', 'bbox_head', 'num_stages', 'stage_loss_weights')},
    ('retinanet_fpn', 'retinanet_fpn_2019'): {'bbox_head.loss_bbox'},
}
"""Two models and the settings in which they differ, with all below them."""
LAYER_DECAY = {'optim_wrapper.constructor', 'optim_wrapper.paramwise_cfg'}
DATASETS = ('train_dataloader.dataset', 'val_dataloader.dataset', 'test_dataloader.dataset')
OTHERS = {
    ('schedules/xcit_160k', 'schedules/metaformer_160k'): {'optim_wrapper.optimizer'},
    ('schedules/metaformer_160k', 'schedules/layer-decay_160k'): LAYER_DECAY,
    ('schedules/xcit_3x', 'schedules/layer-decay_3x'): LAYER_DECAY,
    ('schedules/poolformer_1x', 'schedules/layer-decay_1x'): LAYER_DECAY
    | {'optim_wrapper.optimizer'},
    ('schedules/poolformer_40k', 'schedules/layer-decay_40k'): LAYER_DECAY
    | {'optim_wrapper.optimizer.weight_decay'},
    ('schedules/poolformer_40k', 'schedules/resnet_40k'): {'optim_wrapper.optimizer'},
    ('schedules/sge_2x', 'schedules/sge_20e'): {
        'max_epochs',
        'train_cfg.max_epochs',
        'param_scheduler',
    },
    ('datasets/coco_instance', 'datasets/coco_detection'): {
        'train_pipeline',
        'test_pipeline',
        *(f'{data}.pipeline' for data in DATASETS),
        'val_evaluator.metric',
        'test_evaluator.metric',
    },
    ('datasets/coco_instance', 'datasets/coco_instance_ms'): {
        'short_sides',
        'train_pipeline',
        'train_dataloader.dataset.pipeline',
    },
    ('datasets/imagenet_224', 'datasets/imagenet_224_randaugment'): {
        'train_pipeline',
        'train_dataloader.batch_size',
        'train_dataloader.dataset.pipeline',
    },
    ('datasets/ade20k_512x512', 'datasets/ade20k_512x512_multiple'): {
        'test_pipeline',
        'tta_pipeline',
        'train_dataloader.batch_size',
        'val_dataloader.dataset.pipeline',
        'test_dataloader.dataset.pipeline',
    },
    ('datasets/ade20k_512x512', 'datasets/ade20k_512x512_multiple-16'): {
        'test_pipeline',
        'tta_pipeline',
        'val_dataloader.dataset.pipeline',
        'test_dataloader.dataset.pipeline',
    },
    ('default_runtime_det', 'digit-scenes_runtime_det'): {
        'default_hooks.logger.interval',
        'default_hooks.checkpoint.max_keep_ckpts',
    },
    ('default_runtime_seg', 'digit-scenes_runtime_seg'): {
        'default_hooks.logger.interval',
        'default_hooks.checkpoint.max_keep_ckpts',
        'default_hooks.checkpoint.interval',
    },
    ('digit-scenes_runtime_det', 'schedules/own-data_instance'): {
        'train_cfg',
        'val_cfg',
        'test_cfg',
        'optim_wrapper',
        'default_hooks.checkpoint.save_best',
        'default_hooks.checkpoint.rule',
    },
}
PAIRS = [
    *((f'models/{one}', f'models/{other}', keys) for (one, other), keys in MODELS.items()),
    *((one, other, keys) for (one, other), keys in OTHERS.items()),
]


def load(name: str) -> Config:
    return Config.fromfile(BASES / f'{name}.py', lazy_import=False)


def differences(one: object, other: object, below: tuple[str, ...] = ()) -> set[str]:
    """Returns the settings, joined by dots, that two configs do not share."""
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return set() if one == other else {'.'.join(below)}
    found = set()
    for key in one.keys() | other.keys():
        if key in one and key in other:
            found |= differences(one[key], other[key], (*below, key))
        else:
            found.add('.'.join((*below, key)))
    return found


def is_below(path: str, keys: set[str]) -> bool:
    return any(path == key or path.startswith(f'{key}.') for key in keys)


@pytest.mark.parametrize('file', FILES, ids=lambda file: f'{file.parent.name}/{file.stem}')
def test_no_base_has_a_base(file):
    """So a chain is a config and its bases, and whoever opens a file sees all of it."""
    assert not re.search(r'^_base_\b', file.read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    ('one', 'other', 'keys'), PAIRS, ids=[f'{one}-{other}' for one, other, _ in PAIRS]
)
def test_files_that_are_alike_stay_alike(one, other, keys):
    configs = [load(name).to_dict() for name in (one, other)]
    if one.startswith('models/'):
        configs = [config['model'] for config in configs]
    found = differences(*configs)
    assert {path for path in found if not is_below(path, keys)} == set()
    assert {key for key in keys if not any(is_below(path, {key}) for path in found)} == set()


def test_a_setting_that_drifts_is_noticed():
    one, other = (load(f'schedules/sge_{name}').to_dict() for name in ('2x', '20e'))
    other['optim_wrapper']['clip_grad']['max_norm'] = 5
    assert 'optim_wrapper.clip_grad.max_norm' in differences(one, other)
