_base_ = './faster-rcnn_sge-resnet50_fpn_2x_coco.py'

# No weights of GC-ResNet are public: put a file of your own into checkpoints/.
model = dict(
    backbone=dict(arch='gc_resnet50', init_cfg=dict(checkpoint='checkpoints/gc_resnet50.pth.tar'))
)
