_base_ = './upernet_patchconvnet-s60_8xb2-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(
        arch='b60',
        drop_path_rate=0.15,
        init_cfg=dict(checkpoint='https://dl.fbaipublicfiles.com/deit/b60_384_21k.pth'),
    ),
    neck=dict(in_channels=768),
    decode_head=dict(in_channels=[768] * 4),
    auxiliary_head=dict(in_channels=768),
)
