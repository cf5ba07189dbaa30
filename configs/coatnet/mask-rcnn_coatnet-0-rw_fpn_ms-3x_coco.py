_base_ = [
    '../_base_/backbones/coatnet-0-rw.py',
    '../_base_/models/mask-rcnn_fpn.py',
    '../_base_/datasets/coco_instance_ms.py',
    '../_base_/schedules/layer-decay_3x.py',
    '../_base_/default_runtime_det.py',
]
model = _base_.pop('under').rcnn
