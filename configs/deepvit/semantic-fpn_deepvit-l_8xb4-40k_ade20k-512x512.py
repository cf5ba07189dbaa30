_base_ = './semantic-fpn_deepvit-s_8xb4-40k_ade20k-512x512.py'

# The file 1MTRm0NK_sPGRSyuD_hHJ1Zgw2diEaKLR on Google Drive.
model = dict(
    backbone=dict(
        arch='l', with_cp=True, init_cfg=dict(checkpoint='checkpoints/DViT_83_32b.pth.tar')
    ),
    neck=[
        dict(
            type='attnpool_backbones.ScalePyramid',
            in_channels=420,
            norm_cfg=dict(type='SyncBN', requires_grad=True),
        ),
        dict(type='FPN', in_channels=[420] * 4, out_channels=256, num_outs=4),
    ],
)
optim_wrapper = dict(
    type='AmpOptimWrapper', loss_scale='dynamic', paramwise_cfg=dict(decay_rate=0.9)
)
