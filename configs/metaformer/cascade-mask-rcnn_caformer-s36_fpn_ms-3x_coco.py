_base_ = './cascade-mask-rcnn_caformer-s18_fpn_ms-3x_coco.py'

model = dict(
    backbone=dict(
        arch='caformer_s36',
        drop_path_rate=0.3,
        init_cfg=dict(
            checkpoint='https://huggingface.co/sail/dl/resolve/main/caformer/caformer_s36.pth'
        ),
    )
)
