# mmdet's and mmseg's Swin of a size for the digit scenes, strides 8 and 16.
backbone = dict(
    type='SwinTransformer',
    embed_dims=32,
    depths=(2, 2, 2),
    num_heads=(1, 2, 4),
    drop_path_rate=0.0,
    out_indices=(1, 2),
)
channels = [64, 128]

under = dict(
    rcnn=dict(backbone=backbone, neck=dict(in_channels=channels)),
    upernet=dict(backbone=backbone, decode_head=dict(in_channels=channels)),
)
del backbone, channels
