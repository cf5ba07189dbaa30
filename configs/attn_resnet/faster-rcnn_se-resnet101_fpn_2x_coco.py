_base_ = './faster-rcnn_se-resnet50_fpn_2x_coco.py'

model = dict(
    backbone=dict(arch='se_resnet101', init_cfg=dict(checkpoint='checkpoints/se_resnet101.pth.tar'))
)
train_dataloader = dict(batch_size=1)
optim_wrapper = dict(optimizer=dict(lr=0.01))
auto_scale_lr = dict(base_batch_size=8)
