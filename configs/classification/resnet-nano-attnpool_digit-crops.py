_base_ = [
    '../_base_/models/classifier.py',
    '../_base_/datasets/digit_crops.py',
    '../_base_/schedules/digit-crops.py',
    '../_base_/default_runtime_cls.py',
]
model = dict(
    backbone=dict(type='attnpool_backbones.AttnResNet', arch='resnet_nano', out_indices=2),
    head=dict(type='attnpool_backbones.AttentionPoolingHead', num_classes=10, layer_scale_init=1.0),
)
