_base_ = [
    '../_base_/models/semantic-fpn.py',
    '../_base_/datasets/ade20k_512x512_multiple.py',
    '../_base_/schedules/poolformer_40k.py',
    '../_base_/default_runtime_seg.py',
]

# Not published: PoolFormer's recipe with the drop path of XCiT.
model = dict(
    backbone=dict(
        type='attnpool_backbones.PatchConvNet',
        arch='s60',
        drop_path_rate=0.05,
        init_cfg=dict(
            type='Pretrained', checkpoint='https://dl.fbaipublicfiles.com/deit/s60_224_1k.pth'
        ),
    ),
    neck=[
        dict(
            type='attnpool_backbones.ScalePyramid',
            in_channels=384,
            norm_cfg=dict(type='SyncBN', requires_grad=True),
        ),
        dict(type='FPN', in_channels=[384] * 4, out_channels=256, num_outs=4),
    ],
)
