_base_ = [
    '../_base_/backbones/resnet101.py',
    '../_base_/models/cascade-mask-rcnn_fpn.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/poolformer_1x.py',
    '../_base_/default_runtime_det.py',
]
model = _base_.pop('under').rcnn
