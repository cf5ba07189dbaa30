# PoolFormer-S24 (arXiv 2111.11418), without drop path as in all of its dense recipes.
backbone = dict(
    type='attnpool_backbones.MetaFormer',
    arch='poolformer_s24',
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://github.com/sail-sg/poolformer/releases/download/v1.0/poolformer_s24.pth.tar',
    ),
)
channels = [64, 128, 320, 512]

under = dict(
    rcnn=dict(backbone=backbone, neck=dict(in_channels=channels)),
    retinanet=dict(
        backbone=dict(backbone, out_indices=(1, 2, 3)), neck=dict(in_channels=channels[1:])
    ),
    semantic_fpn=dict(backbone=backbone, neck=dict(in_channels=channels)),
    upernet=dict(
        backbone=backbone,
        decode_head=dict(in_channels=channels),
        auxiliary_head=dict(in_channels=channels[2]),
    ),
)
del backbone, channels
