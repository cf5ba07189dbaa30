_base_ = [
    '../_base_/models/classifier.py',
    '../_base_/datasets/imagenet_224_randaugment.py',
    '../_base_/schedules/transformer_imagenet.py',
    '../_base_/default_runtime_cls.py',
]
model = dict(
    backbone=dict(type='attnpool_backbones.CoAtNet', arch='0', drop_path_rate=0.2),
    head=dict(type='attnpool_backbones.AveragePoolingHead', num_classes=1000, norm='LN'),
    label_smoothing=0.1,
    mixing=dict(mixup=0.8, cutmix=1.0),
)
