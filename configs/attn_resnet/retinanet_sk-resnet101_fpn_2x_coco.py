_base_ = './retinanet_sk-resnet50_fpn_2x_coco.py'

model = dict(
    backbone=dict(arch='sk_resnet101', init_cfg=dict(checkpoint='checkpoints/sk_resnet101.pth.tar'))
)
