# DeepViT-S (arXiv 2103.11886). The checkpoint is the file 1evhBjla4Nth7LawW2PAXnGEcpv3YBWEC
# on Google Drive, linked in the README of dvit_repo; its mean and deviation are 0.5.
backbone = dict(
    type='attnpool_backbones.DeepViT',
    arch='s',
    drop_path_rate=0.2,
    out_norm='all',
    init_cfg=dict(type='Pretrained', checkpoint='checkpoints/DViT_82_16b.pth.tar'),
)
detector = dict(backbone, with_cp=True)
channels = 396
pixels = dict(mean=[127.5] * 3, std=[127.5] * 3)
pyramid = dict(
    type='attnpool_backbones.ScalePyramid',
    in_channels=channels,
    norm_cfg=dict(type='SyncBN', requires_grad=True),
)

under = dict(
    rcnn=dict(
        data_preprocessor=pixels,
        backbone=detector,
        neck=[pyramid, dict(in_channels=[channels] * 4)],
    ),
    retinanet=dict(
        data_preprocessor=pixels,
        backbone=dict(detector, out_indices=(7, 10, 15)),
        neck=[dict(pyramid, out_strides=(8, 16, 32)), dict(in_channels=[channels] * 3)],
    ),
    semantic_fpn=dict(
        data_preprocessor=pixels,
        backbone=backbone,
        neck=[pyramid, dict(in_channels=[channels] * 4)],
    ),
    upernet=dict(
        data_preprocessor=pixels,
        backbone=backbone,
        neck=pyramid,
        decode_head=dict(in_channels=[channels] * 4),
        auxiliary_head=dict(in_channels=channels),
    ),
)
del backbone, detector, channels, pixels, pyramid
