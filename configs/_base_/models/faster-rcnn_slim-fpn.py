# Faster R-CNN of the size of the slim Mask R-CNN, for small backbones and boxes without masks.
_base_ = './mask-rcnn_slim-fpn.py'

model = dict(
    type='FasterRCNN',
    data_preprocessor=dict(pad_mask=False),
    roi_head=dict(mask_roi_extractor=None, mask_head=None),
)
