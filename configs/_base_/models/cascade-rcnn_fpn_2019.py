# Cascade R-CNN as the mmdetection of 2019 trains and tests it.
_base_ = './cascade-mask-rcnn_fpn_2019.py'

model = dict(
    data_preprocessor=dict(pad_mask=False),
    roi_head=dict(mask_roi_extractor=None, mask_head=None),
)
