_base_ = './semantic-fpn_sge-resnet50_8xb4-40k_ade20k-512x512.py'

model = dict(
    backbone=dict(
        arch='sge_resnet101', init_cfg=dict(checkpoint='checkpoints/sge_resnet101.pth.tar')
    )
)
