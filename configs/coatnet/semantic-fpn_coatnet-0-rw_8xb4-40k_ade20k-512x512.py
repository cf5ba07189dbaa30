_base_ = [
    '../_base_/models/semantic-fpn.py',
    '../_base_/datasets/ade20k_512x512_multiple.py',
    '../_base_/schedules/layer-decay_40k.py',
    '../_base_/default_runtime_seg.py',
]

# Not published. Weights, mean and deviation are timm's.
model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),
    backbone=dict(
        type='attnpool_backbones.CoAtNet',
        arch='0_rw',
        drop_path_rate=0.2,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights-maxx/coatnet_0_rw_224_sw-a6439706.pth',
        ),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
