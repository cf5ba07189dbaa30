_base_ = [
    '../_base_/backbones/swin-tiny.py',
    '../_base_/models/cascade-mask-rcnn_fpn.py',
    '../_base_/datasets/coco_instance_ms.py',
    '../_base_/schedules/xcit_3x.py',
    '../_base_/default_runtime_det.py',
]
model = _base_.pop('under').rcnn
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys=dict(relative_position_bias_table=dict(decay_mult=0.0)))
)
