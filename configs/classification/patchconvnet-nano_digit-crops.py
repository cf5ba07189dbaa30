_base_ = [
    '../_base_/models/classifier.py',
    '../_base_/datasets/digit_crops.py',
    '../_base_/schedules/digit-crops.py',
    '../_base_/default_runtime_cls.py',
]
model = dict(
    backbone=dict(type='attnpool_backbones.PatchConvNet', arch='nano', norm_cfg=dict(type='BN'),
                  init_cfg=dict(type='Kaiming', layer='Conv2d', mode='fan_in')),
    head=dict(type='attnpool_backbones.AttentionPoolingHead', num_classes=10, layer_scale_init=1.0),
)  # fmt: skip
