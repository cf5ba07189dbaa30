_base_ = [
    '../_base_/models/mask-rcnn_slim-fpn.py',
    '../_base_/datasets/digit_scenes_instance.py',
    '../_base_/schedules/digit-scenes_instance.py',
]

norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    backbone=dict(
        type='attnpool_backbones.PatchConvNet',
        arch='nano',
        out_indices=(4, 7),
        norm_cfg=norm_cfg,
        init_cfg=dict(type='Kaiming', layer='Conv2d', mode='fan_in'),
    ),
    neck=[
        dict(
            type='attnpool_backbones.ScalePyramid',
            in_channels=128,
            in_stride=8,
            out_strides=(8, 16),
            tap_norm_cfg=dict(type='LN'),
        ),
        dict(type='FPN', in_channels=[128] * 2, out_channels=64, num_outs=2, norm_cfg=norm_cfg),
    ],
)
