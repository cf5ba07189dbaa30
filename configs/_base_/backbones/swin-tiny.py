# Swin-T (arXiv 2103.14030), mmdet's and mmseg's own. mmdet renames the parameters of the authors'
# file; mmseg takes one that is renamed already.
backbone = dict(type='SwinTransformer', drop_path_rate=0.2)
detector = dict(
    backbone,
    convert_weights=True,
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://github.com/SwinTransformer/storage/releases/download/v1.0.0/swin_tiny_patch4_window7_224.pth',
    ),
)
segmentor = dict(
    backbone,
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/swin/swin_tiny_patch4_window7_224_20220317-1cdeb081.pth',
    ),
)
channels = [96, 192, 384, 768]

under = dict(
    rcnn=dict(backbone=detector, neck=dict(in_channels=channels)),
    retinanet=dict(
        backbone=dict(detector, out_indices=(1, 2, 3)), neck=dict(in_channels=channels[1:])
    ),
    semantic_fpn=dict(backbone=segmentor, neck=dict(in_channels=channels)),
    upernet=dict(
        backbone=dict(segmentor, drop_path_rate=0.3),
        decode_head=dict(in_channels=channels),
        auxiliary_head=dict(in_channels=channels[2]),
    ),
)
del backbone, detector, segmentor, channels
