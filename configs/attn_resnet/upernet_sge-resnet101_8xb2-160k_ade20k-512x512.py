_base_ = './upernet_sge-resnet50_8xb2-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(
        arch='sge_resnet101', init_cfg=dict(checkpoint='checkpoints/sge_resnet101.pth.tar')
    )
)
