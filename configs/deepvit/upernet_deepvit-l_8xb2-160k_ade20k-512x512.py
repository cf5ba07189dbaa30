_base_ = './upernet_deepvit-s_8xb2-160k_ade20k-512x512.py'

# The file 1MTRm0NK_sPGRSyuD_hHJ1Zgw2diEaKLR on Google Drive.
model = dict(
    backbone=dict(
        arch='l', with_cp=True, init_cfg=dict(checkpoint='checkpoints/DViT_83_32b.pth.tar')
    ),
    neck=dict(
        type='attnpool_backbones.ScalePyramid',
        in_channels=420,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
    ),
    decode_head=dict(in_channels=[420] * 4),
    auxiliary_head=dict(in_channels=420),
)
optim_wrapper = dict(
    type='AmpOptimWrapper', loss_scale='dynamic', paramwise_cfg=dict(decay_rate=0.9)
)
