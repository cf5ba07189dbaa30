# UperNet that two CPU cores train in minutes on digit scenes: 64 channels over strides 8 and 16, no
# auxiliary head.
# Nine positions in ten are background. The class weight keeps the first iterations from settling
# on background alone, and BN (not SyncBN) also runs in a single process.
norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(192, 192),
    ),
    decode_head=dict(
        type='UPerHead',
        in_index=[0, 1],
        pool_scales=(1, 2, 3, 6),
        channels=64,
        dropout_ratio=0.0,
        num_classes=11,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(
            # Knows pixels that are ignored, which mmseg's own one cannot weigh.
            type='attnpool_backbones.ClassWeightedCrossEntropyLoss',
            class_weight=[0.1, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
        ),
    ),
    auxiliary_head=None,
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
