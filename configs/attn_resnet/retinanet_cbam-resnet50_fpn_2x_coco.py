_base_ = './retinanet_sge-resnet50_fpn_2x_coco.py'

model = dict(
    backbone=dict(
        arch='cbam_resnet50', init_cfg=dict(checkpoint='checkpoints/cbam_resnet50.pth.tar')
    )
)
train_dataloader = dict(batch_size=1)
auto_scale_lr = dict(base_batch_size=8)
