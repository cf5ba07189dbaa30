_base_ = [
    '../_base_/models/upernet.py',
    '../_base_/datasets/ade20k_512x512.py',
    '../_base_/schedules/xcit_160k.py',
    '../_base_/default_runtime_seg.py',
]

# The drop path of PatchConvNet's own runs is not published; this is XCiT's for a model of the size.
model = dict(
    backbone=dict(
        type='attnpool_backbones.PatchConvNet',
        arch='s60',
        drop_path_rate=0.05,
        init_cfg=dict(
            type='Pretrained', checkpoint='https://dl.fbaipublicfiles.com/deit/s60_512_21k.pth'
        ),
    ),
    neck=dict(
        type='attnpool_backbones.ScalePyramid',
        in_channels=384,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
    ),
    decode_head=dict(in_channels=[384] * 4),
    auxiliary_head=dict(in_channels=384),
)
