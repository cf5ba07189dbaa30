_base_ = [
    '../_base_/models/upernet_slim.py',
    '../_base_/datasets/digit_scenes_semantic.py',
    '../_base_/schedules/digit-scenes_semantic.py',
]

model = dict(
    backbone=dict(
        type='attnpool_backbones.PatchConvNet',
        arch='nano',
        out_indices=(4, 7),
        norm_cfg=dict(type='BN', requires_grad=True),
        init_cfg=dict(type='Kaiming', layer='Conv2d', mode='fan_in'),
    ),
    neck=dict(
        type='attnpool_backbones.ScalePyramid',
        in_channels=128,
        in_stride=8,
        out_strides=(8, 16),
        tap_norm_cfg=dict(type='LN'),
    ),
    decode_head=dict(in_channels=[128] * 2),
)
