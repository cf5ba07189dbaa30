_base_ = './cascade-rcnn_sge-resnet50_fpn_20e_coco.py'

model = dict(
    backbone=dict(
        arch='sge_resnet101', init_cfg=dict(checkpoint='checkpoints/sge_resnet101.pth.tar')
    )
)
train_dataloader = dict(batch_size=1)
optim_wrapper = dict(optimizer=dict(lr=0.01))
auto_scale_lr = dict(base_batch_size=8)
