_base_ = [
    '../_base_/backbones/deepvit-l.py',
    '../_base_/models/upernet.py',
    '../_base_/datasets/ade20k_512x512_multiple-16.py',
    '../_base_/schedules/layer-decay_160k.py',
    '../_base_/default_runtime_seg.py',
]
model = _base_.pop('under').upernet
optim_wrapper = dict(
    type='AmpOptimWrapper', loss_scale='dynamic', paramwise_cfg=dict(decay_rate=0.9)
)
