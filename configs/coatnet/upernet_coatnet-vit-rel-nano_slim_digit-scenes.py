_base_ = [
    '../_base_/backbones/coatnet-vit-rel-nano.py',
    '../_base_/models/upernet_slim.py',
    '../_base_/datasets/digit_scenes_semantic.py',
    '../_base_/schedules/digit-scenes_semantic.py',
    '../_base_/digit-scenes_runtime_seg.py',
]
model = _base_.pop('under').upernet
