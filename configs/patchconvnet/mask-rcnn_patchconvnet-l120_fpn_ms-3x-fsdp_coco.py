_base_ = [
    '../_base_/models/mask-rcnn_fpn.py',
    '../_base_/datasets/coco_instance_ms.py',
    '../_base_/schedules/xcit_3x_fsdp.py',
    '../_base_/default_runtime_det.py',
]

# Not published. No weights of L120 are released: this trains from scratch unless init_cfg names a
# file of yours.
model = dict(
    backbone=dict(
        type='attnpool_backbones.PatchConvNet', arch='l120', drop_path_rate=0.15, with_cp=True
    ),
    neck=[
        dict(
            type='attnpool_backbones.ScalePyramid',
            in_channels=1024,
            norm_cfg=dict(type='SyncBN', requires_grad=True),
        ),
        dict(type='FPN', in_channels=[1024] * 4, out_channels=256, num_outs=5),
    ],
)
