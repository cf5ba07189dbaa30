# Loaders and evaluator for label maps of one's own. A config adds `data_root`, classes, folders,
# pipelines and `batch_size`. Epochs, not iterations: small data is counted in images.
train_dataloader = dict(
    num_workers=2,
    persistent_workers=True,
    # a batch norm cannot learn from a last batch of one image
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='BaseSegDataset'),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='BaseSegDataset'),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
