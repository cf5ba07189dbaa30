_base_ = './semantic-fpn_patchconvnet-s60_8xb4-40k_ade20k-512x512.py'

model = dict(
    backbone=dict(
        arch='b60',
        drop_path_rate=0.15,
        init_cfg=dict(checkpoint='https://dl.fbaipublicfiles.com/deit/b60_224_1k.pth'),
    ),
    neck=[
        dict(
            type='attnpool_backbones.ScalePyramid',
            in_channels=768,
            norm_cfg=dict(type='SyncBN', requires_grad=True),
        ),
        dict(type='FPN', in_channels=[768] * 4, out_channels=256, num_outs=4),
    ],
)
