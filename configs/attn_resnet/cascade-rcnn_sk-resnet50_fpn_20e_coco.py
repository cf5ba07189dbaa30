_base_ = [
    '../_base_/backbones/sk-resnet50.py',
    '../_base_/models/cascade-rcnn_fpn_2019.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/sge_20e.py',
    '../_base_/default_runtime_det.py',
]
model = _base_.pop('under').rcnn
