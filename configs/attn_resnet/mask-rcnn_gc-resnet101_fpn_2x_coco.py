_base_ = './mask-rcnn_gc-resnet50_fpn_2x_coco.py'

# No weights of GC-ResNet are public: put a file of your own into checkpoints/.
model = dict(
    backbone=dict(arch='gc_resnet101', init_cfg=dict(checkpoint='checkpoints/gc_resnet101.pth.tar'))
)
train_dataloader = dict(batch_size=1)
optim_wrapper = dict(optimizer=dict(lr=0.01))
auto_scale_lr = dict(base_batch_size=8)
