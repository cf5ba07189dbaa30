# Cascade R-CNN (arXiv 1712.00726) with FPN. A config adds `backbone` and the FPN's `in_channels`.
_base_ = './cascade-mask-rcnn_fpn.py'

model = dict(
    data_preprocessor=dict(pad_mask=False),
    roi_head=dict(mask_roi_extractor=None, mask_head=None),
)
