_base_ = './mask-rcnn_sge-resnet50_fpn_2x_coco.py'

model = dict(
    backbone=dict(
        arch='cbam_resnet50', init_cfg=dict(checkpoint='checkpoints/cbam_resnet50.pth.tar')
    )
)
