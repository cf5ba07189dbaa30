_base_ = './mask-rcnn_caformer-s18_fpn_ms-3x_coco.py'

model = dict(
    backbone=dict(
        arch='convformer_s18',
        drop_path_rate=0.2,
        init_cfg=dict(
            checkpoint='https://huggingface.co/sail/dl/resolve/main/convformer/convformer_s18.pth'
        ),
    )
)
