# ViT-REL, the layout without stages in CoAtNet's comparison, of a size for the digit scenes: one
# scale of stride 8, rescaled to 8 and 16.
backbone = dict(
    type='attnpool_backbones.CoAtNet',
    arch='nano_vit_rel',
    out_indices=(1, 3),
    pretrain_size=192,
)
channels = 128
pyramid = dict(
    type='attnpool_backbones.ScalePyramid',
    in_channels=channels,
    in_stride=8,
    out_strides=(8, 16),
)

under = dict(
    rcnn=dict(backbone=backbone, neck=[pyramid, dict(in_channels=[channels] * 2)]),
    upernet=dict(backbone=backbone, neck=pyramid, decode_head=dict(in_channels=[channels] * 2)),
)
del backbone, channels, pyramid
