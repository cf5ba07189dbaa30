_base_ = [
    '../_base_/models/mask-rcnn_slim-fpn.py',
    '../_base_/datasets/digit_scenes_instance.py',
    '../_base_/schedules/digit-scenes_instance.py',
]

model = dict(
    backbone=dict(type='attnpool_backbones.MetaFormer', arch='nano', out_indices=(1, 2)),
    neck=dict(in_channels=[64, 128]),
)
