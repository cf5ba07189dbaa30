_base_ = './upernet_patchconvnet-b120_8xb2-160k_ade20k-512x512.py'

# No weights of L120 are released: this trains from scratch unless init_cfg names a file of yours.
model = dict(
    backbone=dict(arch='l120', with_cp=True, init_cfg=None),
    neck=dict(in_channels=1024),
    decode_head=dict(in_channels=[1024] * 4),
    auxiliary_head=dict(in_channels=1024),
)
optim_wrapper = dict(type='AmpOptimWrapper', loss_scale='dynamic')
