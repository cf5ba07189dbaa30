# Detection recipe of PoolFormer (arXiv 2111.11418, after PVT, arXiv 2102.12122): AdamW, 12 epochs,
# batch 16 (8 GPUs x 2), weight decay on everything. RetinaNet takes half of this learning rate.
max_epochs = 12
train_cfg = dict(
    type='attnpool_backbones.ResumableEpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1
)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=2e-4, weight_decay=1e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=max_epochs, milestones=[8, 11], gamma=0.1),
]
auto_scale_lr = dict(enable=False, base_batch_size=16)
