# One token per class, from a classifier with one: load_from takes the checkpoint of
# patchconvnet-s60_in1k.py as it is.
_base_ = [
    '../_base_/models/classifier.py',
    '../_base_/datasets/imagenet_224.py',
    '../_base_/schedules/fine-tuning_imagenet.py',
    '../_base_/default_runtime_cls.py',
]
model = dict(
    backbone=dict(
        type='attnpool_backbones.PatchConvNet', arch='s60', out_indices=-1, drop_path_rate=0.05
    ),
    head=dict(
        type='attnpool_backbones.AttentionPoolingHead',
        num_classes=1000,
        per_class=True,
        layer_scale_init=1e-4,
    ),
)
train_dataloader = dict(batch_size=8)
