# One token per class, from a classifier with one: load_from takes that of patchconvnet-s60_in1k.py.
_base_ = [
    '../_base_/models/classifier.py',
    '../_base_/datasets/imagenet_224.py',
    '../_base_/schedules/fine-tuning_imagenet.py',
    '../_base_/default_runtime_cls.py',
]
model = dict(
    backbone=dict(type='attnpool_backbones.PatchConvNet', arch='s60', drop_path_rate=0.05),
    head=dict(type='attnpool_backbones.AttentionPoolingHead',
              num_classes=1000, per_class=True, layer_scale_init=1e-4),
)  # fmt: skip
train_dataloader = dict(batch_size=8)
