# PatchConvNet-L120 (arXiv 2112.13692). No weights are released: it trains from scratch unless
# init_cfg names a file of yours. The drop path is XCiT's for a model of the size.
backbone = dict(
    type='attnpool_backbones.PatchConvNet',
    arch='l120',
    drop_path_rate=0.15,
    with_cp=True,
)
channels = 1024
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
