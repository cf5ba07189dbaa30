_base_ = [
    '../_base_/models/upernet_slim.py',
    '../_base_/datasets/digit_scenes_semantic.py',
    '../_base_/schedules/digit-scenes_semantic.py',
]

model = dict(
    backbone=dict(type='attnpool_backbones.MetaFormer', arch='caformer_nano', out_indices=(1, 2)),
    decode_head=dict(in_channels=[64, 128]),
)
