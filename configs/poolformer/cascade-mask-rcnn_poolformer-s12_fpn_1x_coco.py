_base_ = [
    '../_base_/models/cascade-mask-rcnn_fpn.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/poolformer_1x.py',
    '../_base_/default_runtime_det.py',
]

# Not published: the recipe of its Mask R-CNN.
model = dict(
    backbone=dict(
        type='attnpool_backbones.MetaFormer',
        arch='poolformer_s12',
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://github.com/sail-sg/poolformer/releases/download/v1.0/poolformer_s12.pth.tar',
        ),
    ),
    neck=dict(in_channels=[64, 128, 320, 512]),
)
