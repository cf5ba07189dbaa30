# PatchConvNet of a size for the digit scenes: one scale of stride 8, rescaled to 8 and 16.
# It trains from scratch, hence BatchNorm and a LayerNorm on each tap.
backbone = dict(
    type='attnpool_backbones.PatchConvNet',
    arch='nano',
    out_indices=(4, 7),
    norm_cfg=dict(type='BN', requires_grad=True),
    init_cfg=dict(type='Kaiming', layer='Conv2d', mode='fan_in'),
)
channels = 128
pyramid = dict(
    type='attnpool_backbones.ScalePyramid',
    in_channels=channels,
    in_stride=8,
    out_strides=(8, 16),
    tap_norm_cfg=dict(type='LN'),
)

under = dict(
    rcnn=dict(backbone=backbone, neck=[pyramid, dict(in_channels=[channels] * 2)]),
    upernet=dict(backbone=backbone, neck=pyramid, decode_head=dict(in_channels=[channels] * 2)),
)
del backbone, channels, pyramid
