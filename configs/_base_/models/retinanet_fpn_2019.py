# RetinaNet as the mmdetection of 2019 trains it: smooth L1 losses.
_base_ = './retinanet_fpn.py'

model = dict(
    bbox_head=dict(loss_bbox=dict(_delete_=True, type='SmoothL1Loss', beta=0.11, loss_weight=1.0))
)
