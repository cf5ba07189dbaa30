# PatchConvNet-B60 (arXiv 2112.13692) with the authors' weights of ImageNet-1k.
# The drop path is XCiT's for a model of the size; that of the published runs is not known.
backbone = dict(
    type='attnpool_backbones.PatchConvNet',
    arch='b60',
    drop_path_rate=0.15,
    init_cfg=dict(
        type='Pretrained', checkpoint='https://dl.fbaipublicfiles.com/deit/b60_224_1k.pth'
    ),
)
channels = 768
pyramid = dict(
    type='attnpool_backbones.ScalePyramid',
    in_channels=channels,
    norm_cfg=dict(type='SyncBN', requires_grad=True),
)

under = dict(
    rcnn=dict(backbone=backbone, neck=[pyramid, dict(in_channels=[channels] * 4)]),
    retinanet=dict(
        backbone=dict(backbone, out_indices=(29, 39, 59)),
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
