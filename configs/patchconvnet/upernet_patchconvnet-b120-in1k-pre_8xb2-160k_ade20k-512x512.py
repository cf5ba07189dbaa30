_base_ = './upernet_patchconvnet-b120_8xb2-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(init_cfg=dict(checkpoint='https://dl.fbaipublicfiles.com/deit/b120_224_1k.pth'))
)
