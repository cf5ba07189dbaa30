# ConvFormer-M36 (arXiv 2210.13452) with a LayerNorm on each output.
# The drop path is that of ImageNet training; that of the published dense runs is not known.
backbone = dict(
    type='attnpool_backbones.MetaFormer',
    arch='convformer_m36',
    out_norm='layer',
    drop_path_rate=0.4,
    with_cp=True,
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://huggingface.co/sail/dl/resolve/main/convformer/convformer_m36.pth',
    ),
)
channels = [96, 192, 384, 576]

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
