_base_ = [
    '../_base_/models/upernet.py',
    '../_base_/datasets/ade20k_512x512.py',
    '../_base_/schedules/resnet_160k.py',
    '../_base_/default_runtime_seg.py',
]

# Not published: the usual recipe of ResNets.
# The checkpoints of the authors lie behind the links of PytorchInsight's README; put them into
# checkpoints/ under their own names.
model = dict(
    backbone=dict(
        type='attnpool_backbones.AttnResNet',
        arch='sge_resnet50',
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/sge_resnet50.pth.tar'),
    ),
    decode_head=dict(in_channels=[256, 512, 1024, 2048]),
    auxiliary_head=dict(in_channels=1024),
)
