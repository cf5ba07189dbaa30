# Semantic FPN recipe of PoolFormer (arXiv 2111.11418, after PVT, arXiv 2102.12122): AdamW, 40k
# iterations, batch 32 (8 GPUs x 4), weight decay on everything, no warm-up.
train_cfg = dict(
    type='attnpool_backbones.ResumableIterBasedTrainLoop', max_iters=40000, val_interval=4000
)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=2e-4, weight_decay=1e-4))
param_scheduler = [dict(type='PolyLR', eta_min=0.0, power=0.9, by_epoch=False, begin=0, end=40000)]
auto_scale_lr = dict(enable=False, base_batch_size=32)
