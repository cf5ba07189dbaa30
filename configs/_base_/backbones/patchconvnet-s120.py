# PatchConvNet-S120 (arXiv 2112.13692) with the authors' weights of ImageNet-1k.
# The drop path is XCiT's for a model of the size; that of the published runs is not known.
backbone = dict(
    type='attnpool_backbones.PatchConvNet',
    arch='s120',
    drop_path_rate=0.1,
    init_cfg=dict(
        type='Pretrained', checkpoint='https://dl.fbaipublicfiles.com/deit/s120_224_1k.pth'
    ),
)
channels = 384
pyramid = dict(
    type='attnpool_backbones.ScalePyramid',
    in_channels=channels,
    norm_cfg=dict(type='SyncBN', requires_grad=True),
)

under = dict(
    rcnn=dict(backbone=backbone, neck=[pyramid, dict(in_channels=[channels] * 4)]),
    retinanet=dict(
        backbone=dict(backbone, out_indices=(59, 79, 119)),
        neck=[dict(pyramid, out_strides=(8, 16, 32)), dict(in_channels=[channels] * 3)],
    ),
    semantic_fpn=dict(backbone=backbone, neck=[pyramid, dict(in_channels=[channels] * 4)]),
    upernet=dict(
        backbone=backbone,
        neck=pyramid,
        decode_head=dict(in_channels=[channels] * 4),
        auxiliary_head=dict(in_channels=channels),
    ),
)
del backbone, channels, pyramid
