_base_ = [
    '../_base_/models/upernet.py',
    '../_base_/datasets/ade20k_512x512.py',
    '../_base_/schedules/xcit_160k.py',
    '../_base_/default_runtime_seg.py',
]

# Not published: XCiT's recipe; without drop path, like all dense models of PoolFormer.
model = dict(
    backbone=dict(
        type='attnpool_backbones.MetaFormer',
        arch='poolformer_s12',
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://github.com/sail-sg/poolformer/releases/download/v1.0/poolformer_s12.pth.tar',
        ),
    ),
    decode_head=dict(in_channels=[64, 128, 320, 512]),
    auxiliary_head=dict(in_channels=320),
)
