_base_ = [
    '../_base_/models/semantic-fpn.py',
    '../_base_/datasets/ade20k_512x512_multiple.py',
    '../_base_/schedules/resnet_40k.py',
    '../_base_/default_runtime_seg.py',
]

# Not published: the recipe of the plain ResNets.
# The checkpoints of the authors lie behind the links of PytorchInsight's README; put them into
# checkpoints/ under their own names.
model = dict(
    backbone=dict(
        type='attnpool_backbones.AttnResNet',
        arch='sge_resnet50',
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/sge_resnet50.pth.tar'),
    ),
    neck=dict(in_channels=[256, 512, 1024, 2048]),
)
