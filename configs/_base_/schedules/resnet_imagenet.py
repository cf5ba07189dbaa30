# Classification of arXiv 1905.09646: SGD, 100 epochs, a tenth after 30, 60 and 90; 8 GPUs with 32
# images each. Weights of norms and biases decay too.
train_cfg = dict(
    type='attnpool_backbones.ResumableEpochBasedTrainLoop', max_epochs=100, val_interval=1
)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4)
)
param_scheduler = [dict(type='MultiStepLR', milestones=[30, 60, 90], gamma=0.1, by_epoch=True)]
auto_scale_lr = dict(base_batch_size=256)
