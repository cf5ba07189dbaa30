_base_ = [
    '../_base_/models/cascade-mask-rcnn_fpn.py',
    '../_base_/datasets/coco_instance_ms.py',
    '../_base_/schedules/xcit_3x.py',
    '../_base_/default_runtime_det.py',
]

# The drop path of the published runs is not known; this is that of ImageNet training.
model = dict(
    backbone=dict(
        type='attnpool_backbones.MetaFormer',
        arch='caformer_s18',
        out_norm='layer',
        drop_path_rate=0.15,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://huggingface.co/sail/dl/resolve/main/caformer/caformer_s18.pth',
        ),
    ),
    neck=dict(in_channels=[64, 128, 320, 512]),
)
