_base_ = './retinanet_cbam-resnet50_fpn_2x_coco.py'

model = dict(
    backbone=dict(
        arch='cbam_resnet101', init_cfg=dict(checkpoint='checkpoints/cbam_resnet101.pth.tar')
    )
)
