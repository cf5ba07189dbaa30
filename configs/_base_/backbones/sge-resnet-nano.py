# SGE-ResNet of a size for the digit scenes, strides 8 and 16.
backbone = dict(
    type='attnpool_backbones.AttnResNet',
    arch='sge_resnet_nano',
    out_indices=(1, 2),
)
channels = [128, 256]

under = dict(
    rcnn=dict(backbone=backbone, neck=dict(in_channels=channels)),
    upernet=dict(backbone=backbone, decode_head=dict(in_channels=channels)),
)
del backbone, channels
