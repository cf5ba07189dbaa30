# ADE20K tested at sides rounded up to multiples of 32, as PoolFormer (arXiv 2111.11418) is: worth
# 0.2 to 0.4 mIoU there, because zeros at the border change its norms over the whole map.
_base_ = './ade20k_512x512.py'

test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(2048, 512), keep_ratio=True),
    dict(type='ResizeToMultiple', size_divisor=32),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(batch_size=4)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
