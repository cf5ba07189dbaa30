# The digits of the built-in scenes, one image of 48x48 pixels each, in RGB.
data_root = 'data/digit_scenes/'
train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='attnpool_backbones.ObjectCrops',
        data_root=data_root,
        ann_file='annotations/instances_train.json',
        data_prefix=dict(img='images/training'),
        jitter=True,
    ),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=1,
    persistent_workers=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='attnpool_backbones.ObjectCrops',
        data_root=data_root,
        ann_file='annotations/instances_val.json',
        data_prefix=dict(img='images/validation'),
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='attnpool_backbones.TopAccuracy', topk=(1,))
test_evaluator = val_evaluator
