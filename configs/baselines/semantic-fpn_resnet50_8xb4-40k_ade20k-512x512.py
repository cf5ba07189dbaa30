_base_ = './semantic-fpn_resnet18_8xb4-40k_ade20k-512x512.py'

model = dict(
    backbone=dict(
        depth=50,
        init_cfg=dict(checkpoint='https://download.pytorch.org/models/resnet50-0676ba61.pth'),
    ),
    neck=dict(in_channels=[256, 512, 1024, 2048]),
)
