_base_ = [
    '../_base_/models/upernet.py',
    '../_base_/datasets/ade20k_512x512.py',
    '../_base_/schedules/metaformer_160k.py',
    '../_base_/default_runtime_seg.py',
]

# The drop path of the published runs is not known; this is that of ImageNet training.
model = dict(
    backbone=dict(
        type='attnpool_backbones.MetaFormer',
        arch='caformer_s18',
        out_norm='layer',
        drop_path_rate=0.15,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://huggingface.co/sail/dl/resolve/main/caformer/caformer_s18.pth',
        ),
    ),
    decode_head=dict(in_channels=[64, 128, 320, 512]),
    auxiliary_head=dict(in_channels=320),
)
