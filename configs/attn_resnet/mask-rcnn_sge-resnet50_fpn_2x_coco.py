_base_ = [
    '../_base_/models/mask-rcnn_fpn.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/sge_2x.py',
    '../_base_/default_runtime_det.py',
]

# The checkpoints of the authors lie behind the links of PytorchInsight's README; put them into
# checkpoints/ under their own names. The losses are those of the mmdetection of 2019.
model = dict(
    backbone=dict(
        type='attnpool_backbones.AttnResNet',
        arch='sge_resnet50',
        frozen_stages=1,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/sge_resnet50.pth.tar'),
    ),
    neck=dict(in_channels=[256, 512, 1024, 2048]),
    rpn_head=dict(
        loss_bbox=dict(_delete_=True, type='SmoothL1Loss', beta=1.0 / 9.0, loss_weight=1.0)
    ),
    roi_head=dict(
        bbox_head=dict(
            loss_bbox=dict(_delete_=True, type='SmoothL1Loss', beta=1.0, loss_weight=1.0)
        )
    ),
)
