_base_ = './faster-rcnn_sge-resnet50_fpn_2x_coco.py'

model = dict(
    backbone=dict(arch='sk_resnet50', init_cfg=dict(checkpoint='checkpoints/sk_resnet50.pth.tar'))
)
