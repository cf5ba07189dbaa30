_base_ = './semantic-fpn_coatnet-0-rw_8xb4-40k_ade20k-512x512.py'

model = dict(
    backbone=dict(
        arch='rmlp_2_rw',
        drop_path_rate=0.4,
        with_cp=True,
        init_cfg=dict(
            checkpoint='https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights-maxx/coatnet_rmlp_2_rw_224_sw-5ccfac55.pth'
        ),
    ),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
optim_wrapper = dict(
    type='AmpOptimWrapper', loss_scale='dynamic', paramwise_cfg=dict(decay_rate=0.9)
)
