# Faster R-CNN (arXiv 1506.01497) with FPN. A config adds `backbone` and the FPN's `in_channels`.
_base_ = './mask-rcnn_fpn.py'

model = dict(
    type='FasterRCNN',
    data_preprocessor=dict(pad_mask=False),
    roi_head=dict(mask_roi_extractor=None, mask_head=None),
)
