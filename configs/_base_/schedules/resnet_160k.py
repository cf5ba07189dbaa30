# UperNet with a ResNet, the usual recipe of mmsegmentation: SGD, 160k iterations, batch 16.
train_cfg = dict(
    type='attnpool_backbones.ResumableIterBasedTrainLoop', max_iters=160000, val_interval=16000
)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=5e-4),
    paramwise_cfg=dict(),
)
param_scheduler = [
    dict(type='PolyLR', eta_min=1e-4, power=0.9, by_epoch=False, begin=0, end=160000)
]
auto_scale_lr = dict(enable=False, base_batch_size=16)
