_base_ = './mask-rcnn_resnet18_fpn_1x_coco.py'

model = dict(
    backbone=dict(
        depth=50,
        init_cfg=dict(checkpoint='https://download.pytorch.org/models/resnet50-0676ba61.pth'),
    ),
    neck=dict(in_channels=[256, 512, 1024, 2048]),
)
