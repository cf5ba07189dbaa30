_base_ = [
    '../_base_/models/classifier.py',
    '../_base_/datasets/digit_crops.py',
    '../_base_/schedules/digit-crops.py',
    '../_base_/default_runtime_cls.py',
]
model = dict(
    backbone=dict(type='attnpool_backbones.DeepViT', arch='nano', out_norm='all'),
    head=dict(type='attnpool_backbones.AveragePoolingHead', num_classes=10, norm='none'),
)
