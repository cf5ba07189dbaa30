_base_ = './cascade-mask-rcnn_convformer-s18_fpn_ms-3x_coco.py'

model = dict(
    backbone=dict(
        arch='convformer_s36',
        drop_path_rate=0.3,
        init_cfg=dict(
            checkpoint='https://huggingface.co/sail/dl/resolve/main/convformer/convformer_s36.pth'
        ),
    )
)
