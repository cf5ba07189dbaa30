# Semantic FPN recipe of the ResNet rows in PoolFormer's table (arXiv 2111.11418): SGD.
train_cfg = dict(
    type='attnpool_backbones.ResumableIterBasedTrainLoop', max_iters=40000, val_interval=4000
)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=5e-4)
)
param_scheduler = [dict(type='PolyLR', eta_min=0.0, power=0.9, by_epoch=False, begin=0, end=40000)]
auto_scale_lr = dict(enable=False, base_batch_size=32)
