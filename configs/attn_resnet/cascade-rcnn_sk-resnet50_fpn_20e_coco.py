_base_ = './cascade-rcnn_sge-resnet50_fpn_20e_coco.py'

model = dict(
    backbone=dict(arch='sk_resnet50', init_cfg=dict(checkpoint='checkpoints/sk_resnet50.pth.tar'))
)
