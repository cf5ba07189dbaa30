_base_ = './mask-rcnn_patchconvnet-s60_fpn_ms-3x_coco.py'

model = dict(
    backbone=dict(
        arch='s120',
        drop_path_rate=0.1,
        init_cfg=dict(checkpoint='https://dl.fbaipublicfiles.com/deit/s120_224_1k.pth'),
    )
)
