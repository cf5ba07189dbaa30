# AdamW, 300 epochs, one cosine, warm-up of 5 epochs (arXiv 2012.12877); the rate is for 1024
# images. Mixup, CutMix and label smoothing are arguments of the model; RandAugment and random
# erasing are in datasets/imagenet_224_randaugment.py.
train_cfg = dict(
    type='attnpool_backbones.ResumableEpochBasedTrainLoop', max_epochs=300, val_interval=1
)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-3,
        begin=0,
        end=5,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        begin=5,
        end=300,
        eta_min=1e-5,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
auto_scale_lr = dict(base_batch_size=1024)
