_base_ = [
    '../_base_/backbones/coatnet-vit-rel-nano.py',
    '../_base_/models/mask-rcnn_slim-fpn.py',
    '../_base_/datasets/digit_scenes_instance.py',
    '../_base_/schedules/digit-scenes_instance.py',
    '../_base_/digit-scenes_runtime_det.py',
]
model = _base_.pop('under').rcnn
model.neck[1].update(_base_.model.neck)
