_base_ = [
    '../_base_/backbones/deepvit-s.py',
    '../_base_/models/semantic-fpn.py',
    '../_base_/datasets/ade20k_512x512_multiple.py',
    '../_base_/schedules/layer-decay_40k.py',
    '../_base_/default_runtime_seg.py',
]
model = _base_.pop('under').semantic_fpn
model.neck[1].update(_base_.model.neck)
