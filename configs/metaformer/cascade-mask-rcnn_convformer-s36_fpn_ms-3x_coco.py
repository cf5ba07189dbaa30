_base_ = [
    '../_base_/backbones/convformer-s36.py',
    '../_base_/models/cascade-mask-rcnn_fpn.py',
    '../_base_/datasets/coco_instance_ms.py',
    '../_base_/schedules/xcit_3x.py',
    '../_base_/default_runtime_det.py',
]
model = _base_.pop('under').rcnn
