"""The nano size of every family on digit scenes, under each head that can be exported."""

import copy

from mmengine.config import Config

from attnpool_backbones.config_files import config_root

__all__ = ['FAMILIES', 'HEADS', 'nano_config']

FAMILIES = {
    'caformer': 'metaformer',
    'poolformer': 'poolformer',
    'patchconvnet': 'patchconvnet',
    'coatnet': 'coatnet',
    'deepvit': 'deepvit',
    'sge-resnet': 'attn_resnet',
    'resnet': 'baselines',
    'swin': 'baselines',
}
"""Backbone of nano size -> folder of its configs."""
HEADS = ('retinanet', 'mask-rcnn', 'cascade-mask-rcnn', 'upernet', 'semantic-fpn')
"""The slim Mask R-CNN and UperNet of the configs, and what is made of their parts here."""

_RETINA = dict(
    type='RetinaHead',
    num_classes=10,
    in_channels=64,
    stacked_convs=1,
    feat_channels=64,
    anchor_generator=dict(type='AnchorGenerator', scales=[3], ratios=[1.0, 2.0], strides=[8, 16]),
    bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
)
_RETINA_TRAIN = dict(
    assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0),
    sampler=dict(type='PseudoSampler'),
    allowed_border=-1,
    pos_weight=-1,
    debug=False,
)
_RETINA_TEST = dict(
    nms_pre=300,
    min_bbox_size=0,
    score_thr=0.05,
    nms=dict(type='nms', iou_threshold=0.5),
    max_per_img=20,
)
_SEMANTIC_FPN = dict(
    type='FPNHead',
    in_channels=[64, 64],
    in_index=[0, 1],
    feature_strides=[8, 16],
    channels=64,
    num_classes=11,
    norm_cfg=dict(type='BN'),
    align_corners=False,
    loss_decode=dict(
        # as under the slim UperNet: nine pixels in ten are background
        type='attnpool_backbones.ClassWeightedCrossEntropyLoss',
        class_weight=[0.1] + [1.0] * 10,
    ),
)


def nano_config(family: str, head: str) -> Config:
    """Returns the config of a family's nano size on digit scenes under a head.

    Args:
        family: Among :data:`FAMILIES`.
        head: Among :data:`HEADS`.
    """
    folder = config_root() / FAMILIES[family]
    under = {'upernet': 'upernet', 'semantic-fpn': 'upernet'}.get(head, 'mask-rcnn')
    slim = 'slim' if under == 'upernet' else 'slim-fpn'
    cfg = Config.fromfile(folder / f'{under}_{family}-nano_{slim}_digit-scenes.py')
    rcnn = Config.fromfile(folder / f'mask-rcnn_{family}-nano_slim-fpn_digit-scenes.py').model
    model = cfg.model
    if head == 'retinanet':
        cfg.model = dict(
            type='RetinaNet',
            data_preprocessor=model.data_preprocessor,
            backbone=model.backbone,
            neck=model.neck,
            bbox_head=_RETINA,
            train_cfg=_RETINA_TRAIN,
            test_cfg=_RETINA_TEST,
        )
    elif head == 'cascade-mask-rcnn':
        roi_head = dict(model.roi_head, type='CascadeRoIHead', num_stages=3)
        roi_head['stage_loss_weights'] = [1, 0.5, 0.25]
        for part in ('bbox_head', 'mask_head'):
            roi_head[part] = [copy.deepcopy(roi_head[part]) for _ in range(3)]
        model['type'], model['roi_head'] = 'CascadeRCNN', roi_head
        model.train_cfg.rcnn = [copy.deepcopy(model.train_cfg.rcnn) for _ in range(3)]
    elif head == 'semantic-fpn':
        model.pop('auxiliary_head', None)
        for part in ('backbone', 'neck', 'decode_head'):
            model.pop(part, None)
        model['backbone'], model['neck'], model['decode_head'] = (
            rcnn.backbone, rcnn.neck, _SEMANTIC_FPN,
        )  # fmt: skip
    return cfg
