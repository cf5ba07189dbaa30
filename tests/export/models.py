"""Untrained models of nano size under every head that can be exported."""

import copy
from functools import partial

import torch
from mmengine.config import Config
from torch import nn

from attnpool_backbones.config_files import config_root
from attnpool_backbones.export.graph import build_graph, example
from attnpool_backbones.zoo.config_models import build_config_model

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

RETINA = dict(
    type='RetinaHead',
    num_classes=10,
    in_channels=64,
    stacked_convs=1,
    feat_channels=64,
    anchor_generator=dict(type='AnchorGenerator', scales=[3], ratios=[1.0, 2.0], strides=[8, 16]),
    bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
)
RETINA_TRAIN = dict(
    assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0),
    sampler=dict(type='PseudoSampler'),
    allowed_border=-1,
    pos_weight=-1,
    debug=False,
)
RETINA_TEST = dict(
    nms_pre=300,
    min_bbox_size=0,
    score_thr=0.05,
    nms=dict(type='nms', iou_threshold=0.5),
    max_per_img=20,
)
SEMANTIC_FPN = dict(
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
    """Returns the config of a family's nano size on digit scenes under a head."""
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
            bbox_head=RETINA,
            train_cfg=RETINA_TRAIN,
            test_cfg=RETINA_TEST,
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
            rcnn.backbone, rcnn.neck, SEMANTIC_FPN,
        )  # fmt: skip
    return cfg


SPREADS = {
    'rpn_cls': (1.5, 0), 'fc_cls': (1.5, 0), 'retina_cls': (0.3, -2), 'rpn_reg': (None, 0),
    'fc_reg': (None, 0), 'retina_reg': (None, 0),
}  # fmt: skip
"""Layers that score or move boxes -> spread of what they say of inputs of spread 1, and bias.

Scores of many classes at once end close to 1 otherwise, where equal ones have no order; boxes move
by a fixed spread of the weights."""


def untrained(cfg: Config) -> nn.Module:
    """Builds a model whose scores are far enough apart to be ranked."""
    model = build_config_model(cfg).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    layers = {name: module for name, module in model.named_modules() if _last(name) in SPREADS}
    if layers:
        hooks = [
            layer.register_forward_pre_hook(partial(_spread, *SPREADS[_last(name)]))
            for name, layer in layers.items()
        ]
        with torch.no_grad():
            build_graph(model, cfg)(example(1, 128, 160))
        for hook in hooks:
            hook.remove()
    return model


def _last(name: str) -> str:
    return name.rpartition('.')[2]


def _spread(spread: float | None, bias: float, layer: nn.Module, inputs: tuple) -> None:
    """Draws the weights of a layer for the size of its inputs.

    Maps of an untrained SGE-ResNet-50 have a spread of 30: with weights for 1, the scores of two
    of five proposals were exactly 1 in float32, and torch and onnxruntime ranked them each in its
    own way.
    """
    std = 0.02 if spread is None else spread / layer.weight[0].numel() ** 0.5
    nn.init.normal_(layer.weight, std=std / max(1, float(inputs[0].std())))
    nn.init.constant_(layer.bias, bias)


def classes_of(model: nn.Module) -> tuple[str, ...]:
    """Returns names for the classes of a model."""
    head = getattr(model, 'decode_head', None) or getattr(model, 'bbox_head', None)
    if head is None:
        head = model.roi_head.bbox_head
        head = head[0] if isinstance(head, nn.ModuleList) else head
    return tuple(f'class {label}' for label in range(head.num_classes))
