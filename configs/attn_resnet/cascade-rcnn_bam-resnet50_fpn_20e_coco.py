_base_ = './cascade-rcnn_sge-resnet50_fpn_20e_coco.py'

model = dict(
    backbone=dict(arch='bam_resnet50', init_cfg=dict(checkpoint='checkpoints/bam_resnet50.pth.tar'))
)
