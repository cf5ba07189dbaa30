_base_ = [
    '../_base_/models/faster-rcnn_fpn_2019.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/sge_2x.py',
    '../_base_/default_runtime_det.py',
]

# The checkpoints of the authors lie behind the links of PytorchInsight's README; put them into
# checkpoints/ under their own names.
model = dict(
    backbone=dict(
        type='attnpool_backbones.AttnResNet',
        arch='sge_resnet50',
        frozen_stages=1,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/sge_resnet50.pth.tar'),
    ),
    neck=dict(in_channels=[256, 512, 1024, 2048]),
)
