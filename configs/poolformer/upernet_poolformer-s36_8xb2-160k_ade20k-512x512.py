_base_ = './upernet_poolformer-s12_8xb2-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(
        arch='poolformer_s36',
        init_cfg=dict(
            checkpoint='https://github.com/sail-sg/poolformer/releases/download/v1.0/poolformer_s36.pth.tar'
        ),
    )
)
