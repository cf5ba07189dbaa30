_base_ = './upernet_caformer-s36_8xb2-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(
        arch='caformer_m36',
        drop_path_rate=0.4,
        with_cp=True,
        init_cfg=dict(
            checkpoint='https://huggingface.co/sail/dl/resolve/main/caformer/caformer_m36.pth'
        ),
    ),
    decode_head=dict(in_channels=[96, 192, 384, 576]),
    auxiliary_head=dict(in_channels=384),
)
