_base_ = [
    '../_base_/models/mask-rcnn_slim-fpn.py',
    '../_base_/datasets/digit_scenes_instance.py',
    '../_base_/schedules/digit-scenes_instance.py',
]

model = dict(
    backbone=dict(type='attnpool_backbones.AttnResNet', arch='sge_resnet_nano', out_indices=(1, 2)),
    neck=dict(in_channels=[128, 256]),
)
