_base_ = './retinanet_resnet50_fpn_2x_coco.py'

model = dict(
    backbone=dict(
        depth=101,
        init_cfg=dict(checkpoint='https://download.pytorch.org/models/resnet101-63fe2227.pth'),
    )
)
train_dataloader = dict(batch_size=1)
auto_scale_lr = dict(base_batch_size=8)
