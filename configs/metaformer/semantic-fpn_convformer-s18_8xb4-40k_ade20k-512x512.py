_base_ = './semantic-fpn_caformer-s18_8xb4-40k_ade20k-512x512.py'

model = dict(
    backbone=dict(
        arch='convformer_s18',
        drop_path_rate=0.2,
        init_cfg=dict(
            checkpoint='https://huggingface.co/sail/dl/resolve/main/convformer/convformer_s18.pth'
        ),
    )
)
