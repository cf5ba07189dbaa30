# SK-ResNet-50 (arXiv 1903.06586).
# Detectors freeze the stem, the first stage and the statistics of BatchNorm, as SGE does.
# The checkpoint of SGE's authors is linked in PytorchInsight's README; put it into
# checkpoints/ under its own name.
backbone = dict(
    type='attnpool_backbones.AttnResNet',
    arch='sk_resnet50',
    init_cfg=dict(type='Pretrained', checkpoint='checkpoints/sk_resnet50.pth.tar'),
)
detector = dict(backbone, frozen_stages=1, norm_eval=True)
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
