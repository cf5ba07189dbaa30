# Mask R-CNN as the mmdetection of 2019 (0.6) trains and tests it, on which PytorchInsight (SGE) is
# built: smooth L1 losses, anchors only inside the image, 2000 proposals in training and in test,
# two samples a bin. Boxes are those of today: none is a pixel wider than its coordinates say.
_base_ = './mask-rcnn_fpn.py'

proposals = dict(nms_pre=2000, max_per_img=2000)
model = dict(
    rpn_head=dict(
        loss_bbox=dict(_delete_=True, type='SmoothL1Loss', beta=1.0 / 9.0, loss_weight=1.0)
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(roi_layer=dict(sampling_ratio=2)),
        bbox_head=dict(
            loss_bbox=dict(_delete_=True, type='SmoothL1Loss', beta=1.0, loss_weight=1.0)
        ),
        mask_roi_extractor=dict(roi_layer=dict(sampling_ratio=2)),
    ),
    train_cfg=dict(rpn=dict(allowed_border=0), rpn_proposal=proposals),
    test_cfg=dict(rpn=proposals),
)
