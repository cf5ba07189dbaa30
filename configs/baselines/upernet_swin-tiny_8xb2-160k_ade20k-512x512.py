_base_ = [
    '../_base_/backbones/swin-tiny.py',
    '../_base_/models/upernet.py',
    '../_base_/datasets/ade20k_512x512.py',
    '../_base_/schedules/xcit_160k.py',
    '../_base_/default_runtime_seg.py',
]
model = _base_.pop('under').upernet
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys=dict(relative_position_bias_table=dict(decay_mult=0.0)))
)
