_base_ = './cascade-mask-rcnn_convformer-s36_fpn_ms-3x_coco.py'

model = dict(
    backbone=dict(
        arch='convformer_m36',
        drop_path_rate=0.4,
        with_cp=True,
        init_cfg=dict(
            checkpoint='https://huggingface.co/sail/dl/resolve/main/convformer/convformer_m36.pth'
        ),
    ),
    neck=dict(in_channels=[96, 192, 384, 576]),
)
