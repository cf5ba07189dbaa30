_base_ = [
    '../_base_/models/classifier.py',
    '../_base_/datasets/imagenet_224.py',
    '../_base_/schedules/resnet_imagenet.py',
    '../_base_/default_runtime_cls.py',
]
model = dict(
    backbone=dict(type='attnpool_backbones.AttnResNet', arch='resnet50'),
    head=dict(
        type='attnpool_backbones.AttentionPoolingHead', num_classes=1000, layer_scale_init=1e-4
    ),
)
