_base_ = [
    '../_base_/backbones/poolformer-s36.py',
    '../_base_/models/retinanet_fpn.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/poolformer_1x.py',
    '../_base_/default_runtime_det.py',
]
model = _base_.pop('under').retinanet
optim_wrapper = dict(optimizer=dict(lr=1e-4))
