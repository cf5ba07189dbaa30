_base_ = [
    '../_base_/models/retinanet_fpn.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/poolformer_1x.py',
    '../_base_/default_runtime_det.py',
]

# Not published: PoolFormer's recipe with the drop path of ImageNet training.
model = dict(
    backbone=dict(
        type='attnpool_backbones.MetaFormer',
        arch='caformer_s18',
        out_indices=(1, 2, 3),
        out_norm='layer',
        drop_path_rate=0.15,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://huggingface.co/sail/dl/resolve/main/caformer/caformer_s18.pth',
        ),
    ),
    neck=dict(in_channels=[128, 320, 512]),
)
optim_wrapper = dict(optimizer=dict(lr=1e-4))
