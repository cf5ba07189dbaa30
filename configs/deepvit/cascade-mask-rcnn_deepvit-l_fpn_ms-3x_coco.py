_base_ = './cascade-mask-rcnn_deepvit-s_fpn_ms-3x_coco.py'

# The file 1MTRm0NK_sPGRSyuD_hHJ1Zgw2diEaKLR on Google Drive.
model = dict(
    backbone=dict(arch='l', init_cfg=dict(checkpoint='checkpoints/DViT_83_32b.pth.tar')),
    neck=[
        dict(
            type='attnpool_backbones.ScalePyramid',
            in_channels=420,
            norm_cfg=dict(type='SyncBN', requires_grad=True),
        ),
        dict(type='FPN', in_channels=[420] * 4, out_channels=256, num_outs=5),
    ],
)
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=0.9))
