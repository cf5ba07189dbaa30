_base_ = [
    '../_base_/backbones/resnet101.py',
    '../_base_/models/semantic-fpn.py',
    '../_base_/datasets/ade20k_512x512_multiple.py',
    '../_base_/schedules/resnet_40k.py',
    '../_base_/default_runtime_seg.py',
]
model = _base_.pop('under').semantic_fpn
