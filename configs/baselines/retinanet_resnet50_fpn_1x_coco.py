_base_ = './retinanet_resnet18_fpn_1x_coco.py'

model = dict(
    backbone=dict(
        depth=50,
        init_cfg=dict(checkpoint='https://download.pytorch.org/models/resnet50-0676ba61.pth'),
    ),
    neck=dict(in_channels=[512, 1024, 2048]),
)
