_base_ = [
    '../_base_/models/classifier.py',
    '../_base_/datasets/digit_crops.py',
    '../_base_/schedules/digit-crops.py',
    '../_base_/default_runtime_cls.py',
]
model = dict(
    backbone=dict(type='attnpool_backbones.CoAtNet', arch='nano', pretrain_size=48),
    head=dict(type='attnpool_backbones.AveragePoolingHead', num_classes=10, norm='LN'),
)
