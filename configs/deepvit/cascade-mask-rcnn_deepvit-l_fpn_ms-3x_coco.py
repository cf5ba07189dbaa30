_base_ = [
    '../_base_/backbones/deepvit-l.py',
    '../_base_/models/cascade-mask-rcnn_fpn.py',
    '../_base_/datasets/coco_instance_ms.py',
    '../_base_/schedules/layer-decay_3x.py',
    '../_base_/default_runtime_det.py',
]
model = _base_.pop('under').rcnn
model.neck[1].update(_base_.model.neck)
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=0.9))
