_base_ = [
    '../_base_/models/upernet_slim.py',
    '../_base_/datasets/digit_scenes_semantic.py',
    '../_base_/schedules/digit-scenes_semantic.py',
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
    decode_head=dict(in_channels=[64, 128]),
)
