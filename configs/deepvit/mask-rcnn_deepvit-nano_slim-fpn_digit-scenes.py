_base_ = [
    '../_base_/models/mask-rcnn_slim-fpn.py',
    '../_base_/datasets/digit_scenes_instance.py',
    '../_base_/schedules/digit-scenes_instance.py',
]

model = dict(
    backbone=dict(
        type='attnpool_backbones.DeepViT', arch='nano', out_indices=(4, 7), out_norm='all'
    ),
    neck=[
        dict(
            type='attnpool_backbones.ScalePyramid',
            in_channels=128,
            in_stride=8,
            out_strides=(8, 16),
        ),
        dict(
            type='FPN',
            in_channels=[128] * 2,
            out_channels=64,
            num_outs=2,
            norm_cfg=dict(type='BN', requires_grad=True),
        ),
    ],
)
