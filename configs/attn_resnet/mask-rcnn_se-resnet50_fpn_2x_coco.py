_base_ = './mask-rcnn_sge-resnet50_fpn_2x_coco.py'

# No weights of SE-ResNet-50 are public: put a file of your own into checkpoints/.
model = dict(
    backbone=dict(arch='se_resnet50', init_cfg=dict(checkpoint='checkpoints/se_resnet50.pth.tar'))
)
