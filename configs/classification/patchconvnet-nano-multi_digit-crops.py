# One token per class: load_from takes the checkpoint of patchconvnet-nano_digit-crops.py as it is.
_base_ = [
    '../_base_/models/classifier.py',
    '../_base_/datasets/digit_crops.py',
    '../_base_/schedules/fine-tuning_digit-crops.py',
    '../_base_/default_runtime_cls.py',
]
model = dict(
    backbone=dict(type='attnpool_backbones.PatchConvNet', arch='nano', norm_cfg=dict(type='BN')),
    head=dict(type='attnpool_backbones.AttentionPoolingHead',
              num_classes=10, per_class=True, layer_scale_init=1.0),
)  # fmt: skip
train_dataloader = dict(batch_size=16)
