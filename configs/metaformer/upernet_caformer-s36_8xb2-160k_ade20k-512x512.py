_base_ = './upernet_caformer-s18_8xb2-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(
        arch='caformer_s36',
        drop_path_rate=0.3,
        init_cfg=dict(
            checkpoint='https://huggingface.co/sail/dl/resolve/main/caformer/caformer_s36.pth'
        ),
    )
)
