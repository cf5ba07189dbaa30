# Cascade Mask R-CNN as the mmdetection of 2019 trains and tests it: see mask-rcnn_fpn_2019.py. The
# losses and the border are no different here. A box head's assigner, too, gave every object the
# proposal that overlaps it most, if only by the threshold.
_base_ = './cascade-mask-rcnn_fpn.py'

proposals = dict(nms_pre=2000, max_per_img=2000)
model = dict(
    roi_head=dict(
        bbox_roi_extractor=dict(roi_layer=dict(sampling_ratio=2)),
        mask_roi_extractor=dict(roi_layer=dict(sampling_ratio=2)),
    ),
    train_cfg=dict(
        rpn_proposal=proposals,
        rcnn=[
            dict(stage, assigner=dict(stage.assigner, match_low_quality=True))
            for stage in _base_.model.train_cfg.rcnn
        ],
    ),
    test_cfg=dict(rpn=proposals),
)
