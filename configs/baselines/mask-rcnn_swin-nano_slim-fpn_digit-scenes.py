_base_ = [
    '../_base_/models/mask-rcnn_slim-fpn.py',
    '../_base_/datasets/digit_scenes_instance.py',
    '../_base_/schedules/digit-scenes_instance.py',
]

model = dict(
    backbone=dict(
        type='SwinTransformer',
        embed_dims=32,
        depths=(2, 2, 2),
        num_heads=(1, 2, 4),
        drop_path_rate=0.0,
        out_indices=(1, 2),
    ),
    neck=dict(in_channels=[64, 128]),
)
