_base_ = [
    '../_base_/models/classifier.py',
    '../_base_/datasets/imagenet_224_randaugment.py',
    '../_base_/schedules/transformer_imagenet.py',
    '../_base_/default_runtime_cls.py',
]
model = dict(
    backbone=dict(type='attnpool_backbones.PatchConvNet', arch='s60', drop_path_rate=0.05),
    head=dict(type='attnpool_backbones.AttentionPoolingHead',
              num_classes=1000, layer_scale_init=1e-4),
    label_smoothing=0.1,
    mixing=dict(mixup=0.8, cutmix=1.0),
)  # fmt: skip
