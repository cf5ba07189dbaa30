# From one class token to one per class: a small rate and a small batch, because K tokens take much
# memory and are hard to train from scratch (arXiv 2112.13692). Rate and length are ours.
train_cfg = dict(
    type='attnpool_backbones.ResumableEpochBasedTrainLoop', max_epochs=20, val_interval=1
)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-6, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type='CosineAnnealingLR', begin=0, end=20, by_epoch=True, convert_to_iter_based=True)
]
auto_scale_lr = dict(base_batch_size=64)
