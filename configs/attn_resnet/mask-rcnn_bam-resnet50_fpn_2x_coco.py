_base_ = './mask-rcnn_sge-resnet50_fpn_2x_coco.py'

model = dict(
    backbone=dict(arch='bam_resnet50', init_cfg=dict(checkpoint='checkpoints/bam_resnet50.pth.tar'))
)
