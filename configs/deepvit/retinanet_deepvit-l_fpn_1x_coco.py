_base_ = './retinanet_deepvit-s_fpn_1x_coco.py'

# The file 1MTRm0NK_sPGRSyuD_hHJ1Zgw2diEaKLR on Google Drive.
model = dict(
    backbone=dict(
        arch='l',
        out_indices=(15, 20, 31),
        init_cfg=dict(checkpoint='checkpoints/DViT_83_32b.pth.tar'),
    ),
    neck=[
        dict(
            type='attnpool_backbones.ScalePyramid',
            in_channels=420,
            out_strides=(8, 16, 32),
            norm_cfg=dict(type='SyncBN', requires_grad=True),
        ),
        dict(
            type='FPN',
            in_channels=[420] * 3,
            out_channels=256,
            add_extra_convs='on_input',
            num_outs=5,
        ),
    ],
)
optim_wrapper = dict(
    type='AmpOptimWrapper', loss_scale='dynamic', paramwise_cfg=dict(decay_rate=0.9)
)
