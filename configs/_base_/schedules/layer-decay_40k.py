# Semantic FPN in 40k iterations, batch 32, with learning rates that fall from the last block to the
# stem (layer-wise decay, arXiv 2106.08254).
train_cfg = dict(
    type='attnpool_backbones.ResumableIterBasedTrainLoop', max_iters=40000, val_interval=4000
)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-4, weight_decay=0.05),
    constructor='attnpool_backbones.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(decay_rate=0.85),
)
param_scheduler = [dict(type='PolyLR', eta_min=0.0, power=0.9, by_epoch=False, begin=0, end=40000)]
auto_scale_lr = dict(enable=False, base_batch_size=32)
