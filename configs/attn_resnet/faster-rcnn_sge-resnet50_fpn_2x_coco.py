_base_ = [
    '../_base_/backbones/sge-resnet50.py',
    '../_base_/models/faster-rcnn_fpn_2019.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/sge_2x.py',
    '../_base_/default_runtime_det.py',
]
model = _base_.pop('under').rcnn
