custom_hooks = [
    dict(type='attnpool_backbones.InvalidLossHook'),
    dict(type='attnpool_backbones.RandomStateHook'),
]
data_root = 'data/digit_scenes/'
dataset_type = 'CocoDataset'
default_hooks = dict(
    checkpoint=dict(interval=1, max_keep_ckpts=1, type='attnpool_backbones.SafeCheckpointHook'),
    logger=dict(interval=20, type='LoggerHook'),
    param_scheduler=dict(type='ParamSchedulerHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    timer=dict(type='IterTimerHook'),
    visualization=dict(type='DetVisualizationHook'),
)
default_scope = 'mmdet'
env_cfg = dict(
    cudnn_benchmark=False,
    dist_cfg=dict(backend='nccl'),
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
)
load_from = None
log_level = 'INFO'
log_processor = dict(by_epoch=True, type='LogProcessor', window_size=50)
max_epochs = 3
metainfo = dict(
    classes=(
        'zero',
        'one',
        'two',
        'three',
        'four',
        'five',
        'six',
        'seven',
        'eight',
        'nine',
    )
)
model = dict(
    backbone=dict(
        arch='nano',
        out_indices=(
            4,
            7,
        ),
        out_norm='all',
        type='attnpool_backbones.DeepViT',
    ),
    data_preprocessor=dict(
        bgr_to_rgb=True,
        mean=[
            123.675,
            116.28,
            103.53,
        ],
        pad_mask=True,
        pad_size_divisor=32,
        std=[
            58.395,
            57.12,
            57.375,
        ],
        type='DetDataPreprocessor',
    ),
    neck=[
        dict(
            in_channels=128,
            in_stride=8,
            out_strides=(
                8,
                16,
            ),
            type='attnpool_backbones.ScalePyramid',
        ),
        dict(
            in_channels=[
                128,
                128,
            ],
            norm_cfg=dict(requires_grad=True, type='BN'),
            num_outs=2,
            out_channels=64,
            type='FPN',
        ),
    ],
    roi_head=dict(
        bbox_head=dict(
            bbox_coder=dict(
                target_means=[
                    0.0,
                    0.0,
                    0.0,
                    0.0,
                ],
                target_stds=[
                    0.1,
                    0.1,
                    0.2,
                    0.2,
                ],
                type='DeltaXYWHBBoxCoder',
            ),
            fc_out_channels=256,
            in_channels=64,
            loss_bbox=dict(loss_weight=1.0, type='L1Loss'),
            loss_cls=dict(loss_weight=2.0, type='CrossEntropyLoss', use_sigmoid=False),
            num_classes=10,
            reg_class_agnostic=True,
            roi_feat_size=7,
            type='Shared2FCBBoxHead',
        ),
        bbox_roi_extractor=dict(
            featmap_strides=[
                8,
                16,
            ],
            out_channels=64,
            roi_layer=dict(output_size=7, sampling_ratio=1, type='RoIAlign'),
            type='SingleRoIExtractor',
        ),
        mask_head=dict(
            conv_out_channels=64,
            in_channels=64,
            loss_mask=dict(loss_weight=1.0, type='CrossEntropyLoss', use_mask=True),
            norm_cfg=dict(requires_grad=True, type='BN'),
            num_classes=10,
            num_convs=1,
            type='FCNMaskHead',
        ),
        mask_roi_extractor=dict(
            featmap_strides=[
                8,
                16,
            ],
            out_channels=64,
            roi_layer=dict(output_size=10, sampling_ratio=1, type='RoIAlign'),
            type='SingleRoIExtractor',
        ),
        type='StandardRoIHead',
    ),
    rpn_head=dict(
        anchor_generator=dict(
            ratios=[
                1.0,
                2.0,
            ],
            scales=[
                3,
                4.5,
            ],
            strides=[
                8,
                16,
            ],
            type='AnchorGenerator',
        ),
        bbox_coder=dict(
            target_means=[
                0.0,
                0.0,
                0.0,
                0.0,
            ],
            target_stds=[
                1.0,
                1.0,
                1.0,
                1.0,
            ],
            type='DeltaXYWHBBoxCoder',
        ),
        feat_channels=64,
        in_channels=64,
        loss_bbox=dict(loss_weight=1.0, type='L1Loss'),
        loss_cls=dict(loss_weight=1.0, type='CrossEntropyLoss', use_sigmoid=True),
        type='RPNHead',
    ),
    test_cfg=dict(
        rcnn=dict(
            mask_thr_binary=0.5,
            max_per_img=20,
            nms=dict(iou_threshold=0.5, type='nms'),
            score_thr=0.05,
        ),
        rpn=dict(
            max_per_img=100, min_bbox_size=0, nms=dict(iou_threshold=0.7, type='nms'), nms_pre=300
        ),
    ),
    train_cfg=dict(
        rcnn=dict(
            assigner=dict(
                ignore_iof_thr=-1,
                match_low_quality=True,
                min_pos_iou=0.5,
                neg_iou_thr=0.5,
                pos_iou_thr=0.5,
                type='MaxIoUAssigner',
            ),
            debug=False,
            mask_size=20,
            pos_weight=-1,
            sampler=dict(
                add_gt_as_proposals=True,
                neg_pos_ub=-1,
                num=16,
                pos_fraction=0.25,
                type='RandomSampler',
            ),
        ),
        rpn=dict(
            allowed_border=-1,
            assigner=dict(
                ignore_iof_thr=-1,
                match_low_quality=True,
                min_pos_iou=0.3,
                neg_iou_thr=0.3,
                pos_iou_thr=0.7,
                type='MaxIoUAssigner',
            ),
            debug=False,
            pos_weight=-1,
            sampler=dict(
                add_gt_as_proposals=False,
                neg_pos_ub=-1,
                num=128,
                pos_fraction=0.5,
                type='RandomSampler',
            ),
        ),
        rpn_proposal=dict(
            max_per_img=50, min_bbox_size=0, nms=dict(iou_threshold=0.7, type='nms'), nms_pre=100
        ),
    ),
    type='MaskRCNN',
)
norm_cfg = dict(requires_grad=True, type='BN')
optim_wrapper = dict(
    clip_grad=dict(max_norm=5.0),
    optimizer=dict(
        betas=(
            0.9,
            0.999,
        ),
        lr=0.002,
        type='AdamW',
        weight_decay=0.05,
    ),
    paramwise_cfg=dict(bias_decay_mult=0.0, norm_decay_mult=0.0),
    type='OptimWrapper',
)
param_scheduler = [
    dict(begin=0, by_epoch=False, end=50, start_factor=0.01, type='LinearLR'),
    dict(begin=0, by_epoch=True, convert_to_iter_based=True, end=3, type='CosineAnnealingLR'),
]
resume = False
test_cfg = dict(type='TestLoop')
test_dataloader = dict(
    batch_size=8,
    dataset=dict(
        ann_file='annotations/instances_val.json',
        data_prefix=dict(img='images/validation/'),
        data_root='data/digit_scenes/',
        metainfo=dict(
            classes=(
                'zero',
                'one',
                'two',
                'three',
                'four',
                'five',
                'six',
                'seven',
                'eight',
                'nine',
            )
        ),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(
                keep_ratio=True,
                scale=(
                    192,
                    192,
                ),
                type='Resize',
            ),
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            dict(
                meta_keys=(
                    'img_id',
                    'img_path',
                    'ori_shape',
                    'img_shape',
                    'scale_factor',
                ),
                type='PackDetInputs',
            ),
        ],
        test_mode=True,
        type='CocoDataset',
    ),
    num_workers=1,
    persistent_workers=True,
    sampler=dict(shuffle=False, type='DefaultSampler'),
)
test_evaluator = dict(
    ann_file='data/digit_scenes/annotations/instances_val.json',
    metric=[
        'bbox',
        'segm',
    ],
    type='CocoMetric',
)
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        keep_ratio=True,
        scale=(
            192,
            192,
        ),
        type='Resize',
    ),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        meta_keys=(
            'img_id',
            'img_path',
            'ori_shape',
            'img_shape',
            'scale_factor',
        ),
        type='PackDetInputs',
    ),
]
train_cfg = dict(max_epochs=3, type='EpochBasedTrainLoop', val_interval=3)
train_dataloader = dict(
    batch_size=8,
    dataset=dict(
        ann_file='annotations/instances_train.json',
        data_prefix=dict(img='images/training/'),
        data_root='data/digit_scenes/',
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        metainfo=dict(
            classes=(
                'zero',
                'one',
                'two',
                'three',
                'four',
                'five',
                'six',
                'seven',
                'eight',
                'nine',
            )
        ),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            dict(
                keep_ratio=True,
                scale=(
                    192,
                    192,
                ),
                type='Resize',
            ),
            dict(type='PackDetInputs'),
        ],
        type='CocoDataset',
    ),
    num_workers=1,
    persistent_workers=True,
    sampler=dict(shuffle=True, type='DefaultSampler'),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        keep_ratio=True,
        scale=(
            192,
            192,
        ),
        type='Resize',
    ),
    dict(type='PackDetInputs'),
]
val_cfg = dict(type='ValLoop')
val_dataloader = dict(
    batch_size=8,
    dataset=dict(
        ann_file='annotations/instances_val.json',
        data_prefix=dict(img='images/validation/'),
        data_root='data/digit_scenes/',
        metainfo=dict(
            classes=(
                'zero',
                'one',
                'two',
                'three',
                'four',
                'five',
                'six',
                'seven',
                'eight',
                'nine',
            )
        ),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(
                keep_ratio=True,
                scale=(
                    192,
                    192,
                ),
                type='Resize',
            ),
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            dict(
                meta_keys=(
                    'img_id',
                    'img_path',
                    'ori_shape',
                    'img_shape',
                    'scale_factor',
                ),
                type='PackDetInputs',
            ),
        ],
        test_mode=True,
        type='CocoDataset',
    ),
    num_workers=1,
    persistent_workers=True,
    sampler=dict(shuffle=False, type='DefaultSampler'),
)
val_evaluator = dict(
    ann_file='data/digit_scenes/annotations/instances_val.json',
    metric=[
        'bbox',
        'segm',
    ],
    type='CocoMetric',
)
vis_backends = [
    dict(type='LocalVisBackend'),
]
visualizer = dict(
    name='visualizer',
    type='DetLocalVisualizer',
    vis_backends=[
        dict(type='LocalVisBackend'),
    ],
)
