_base_ = './retinanet_bam-resnet50_fpn_2x_coco.py'

model = dict(
    backbone=dict(
        arch='bam_resnet101', init_cfg=dict(checkpoint='checkpoints/bam_resnet101.pth.tar')
    )
)
