# ImageNet-1k in folders: data/imagenet/train/CLASS/*.JPEG and data/imagenet/val/CLASS/*.JPEG; any
# images in one folder a class do (set num_classes of the head). In training random crops and flips,
# two operations of random strength (RandAugment, arXiv 1909.13719), and in every fourth image a
# rectangle of 2 to 33 % erased (arXiv 1708.04896), the last two by mmdet. In tests the middle
# 224x224 of shorter side 256.
data_root = 'data/imagenet/'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='attnpool_backbones.RandomResizedCrop', scale=224),
    dict(type='RandomFlip', prob=0.5),
    dict(type='RandAugment', _scope_='mmdet', aug_num=2),
    dict(
        type='RandomApply',
        prob=0.25,
        transforms=[
            dict(type='mmdet.RandomErasing', n_patches=1, ratio=(0.14, 0.58), squared=False)
        ],
    ),
    dict(type='attnpool_backbones.PackImage'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='attnpool_backbones.ShortSide', side=256),
    dict(type='CenterCrop', crop_size=224, auto_pad=True),
    dict(type='attnpool_backbones.PackImage'),
]
train_dataloader = dict(
    batch_size=128,  # on each of eight GPUs, for the rate of schedules/transformer_imagenet.py
    num_workers=8,
    persistent_workers=True,
    drop_last=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='attnpool_backbones.ClassFolders',
        data_root=data_root,
        data_prefix=dict(img='train'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=32,
    num_workers=8,
    persistent_workers=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='attnpool_backbones.ClassFolders',
        data_root=data_root,
        data_prefix=dict(img='val'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='attnpool_backbones.TopAccuracy', topk=(1, 5))
test_evaluator = val_evaluator
