_base_ = './retinanet_caformer-s18_fpn_1x_coco.py'

model = dict(
    backbone=dict(
        arch='caformer_m36',
        drop_path_rate=0.4,
        with_cp=True,
        init_cfg=dict(
            checkpoint='https://huggingface.co/sail/dl/resolve/main/caformer/caformer_m36.pth'
        ),
    ),
    neck=dict(in_channels=[192, 384, 576]),
)
