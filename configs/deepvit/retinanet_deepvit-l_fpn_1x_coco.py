_base_ = [
    '../_base_/backbones/deepvit-l.py',
    '../_base_/models/retinanet_fpn.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/layer-decay_1x.py',
    '../_base_/default_runtime_det.py',
]
model = _base_.pop('under').retinanet
model.neck[1].update(_base_.model.neck)
optim_wrapper = dict(
    type='AmpOptimWrapper', loss_scale='dynamic', paramwise_cfg=dict(decay_rate=0.9)
)
