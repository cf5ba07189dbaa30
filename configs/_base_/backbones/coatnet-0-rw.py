# CoAtNet-0-rw (arXiv 2106.04803). Weights, mean and deviation are timm's. Under
# detectors attention stays within windows of the size of pretraining, as MOAT (arXiv 2210.01820)
# is fine-tuned.
backbone = dict(
    type='attnpool_backbones.CoAtNet',
    arch='0_rw',
    drop_path_rate=0.2,
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights-maxx/coatnet_0_rw_224_sw-a6439706.pth',
    ),
)
detector = dict(backbone, windows=(None, None, 14, 7))
channels = [96, 192, 384, 768]
pixels = dict(mean=[127.5] * 3, std=[127.5] * 3)

under = dict(
    rcnn=dict(data_preprocessor=pixels, backbone=detector, neck=dict(in_channels=channels)),
    retinanet=dict(
        data_preprocessor=pixels,
        backbone=dict(detector, out_indices=(1, 2, 3)),
        neck=dict(in_channels=channels[1:]),
    ),
    semantic_fpn=dict(data_preprocessor=pixels, backbone=backbone, neck=dict(in_channels=channels)),
    upernet=dict(
        data_preprocessor=pixels,
        backbone=backbone,
        decode_head=dict(in_channels=channels),
        auxiliary_head=dict(in_channels=channels[2]),
    ),
)
del backbone, detector, channels, pixels
