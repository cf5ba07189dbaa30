# Recipe of SGE (arXiv 1905.09646) for Cascade R-CNN: 20 epochs.
_base_ = './sge_2x.py'

max_epochs = 20
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=1.0 / 3, by_epoch=False, begin=0, end=500),
    dict(
        type='MultiStepLR', by_epoch=True, begin=0, end=max_epochs, milestones=[16, 19], gamma=0.1
    ),
]
