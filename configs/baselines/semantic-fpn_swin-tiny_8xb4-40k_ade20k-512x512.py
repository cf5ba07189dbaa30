_base_ = [
    '../_base_/models/semantic-fpn.py',
    '../_base_/datasets/ade20k_512x512_multiple.py',
    '../_base_/schedules/poolformer_40k.py',
    '../_base_/default_runtime_seg.py',
]

model = dict(
    backbone=dict(
        type='SwinTransformer',
        drop_path_rate=0.2,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/swin/swin_tiny_patch4_window7_224_20220317-1cdeb081.pth',
        ),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
