_base_ = './cascade-rcnn_bam-resnet50_fpn_20e_coco.py'

model = dict(
    backbone=dict(
        arch='bam_resnet101', init_cfg=dict(checkpoint='checkpoints/bam_resnet101.pth.tar')
    )
)
train_dataloader = dict(batch_size=1)
optim_wrapper = dict(optimizer=dict(lr=0.01))
auto_scale_lr = dict(base_batch_size=8)
