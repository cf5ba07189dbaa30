# ResNet-50 (arXiv 1512.03385), mmdet's and mmseg's own, with torchvision's weights.
backbone = dict(
    type='ResNet',
    depth=50,
    init_cfg=dict(
        type='Pretrained', checkpoint='https://download.pytorch.org/models/resnet50-0676ba61.pth'
    ),
)
detector = dict(backbone, frozen_stages=1)
segmentor = dict(backbone, norm_cfg=dict(type='SyncBN', requires_grad=True))
channels = [256, 512, 1024, 2048]

under = dict(
    rcnn=dict(backbone=detector, neck=dict(in_channels=channels)),
    retinanet=dict(
        backbone=dict(detector, out_indices=(1, 2, 3)), neck=dict(in_channels=channels[1:])
    ),
    semantic_fpn=dict(backbone=segmentor, neck=dict(in_channels=channels)),
    upernet=dict(
        backbone=segmentor,
        decode_head=dict(in_channels=channels),
        auxiliary_head=dict(in_channels=channels[2]),
    ),
)
del backbone, detector, segmentor, channels
