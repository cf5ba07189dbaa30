_base_ = [
    '../_base_/models/cascade-mask-rcnn_fpn.py',
    '../_base_/datasets/coco_instance_ms.py',
    '../_base_/schedules/xcit_3x.py',
    '../_base_/default_runtime_det.py',
]

# Not published: XCiT's recipe with the drop path of XCiT.
model = dict(
    backbone=dict(
        type='attnpool_backbones.PatchConvNet',
        arch='s60',
        drop_path_rate=0.05,
        init_cfg=dict(
            type='Pretrained', checkpoint='https://dl.fbaipublicfiles.com/deit/s60_224_1k.pth'
        ),
    ),
    neck=[
        dict(
            type='attnpool_backbones.ScalePyramid',
            in_channels=384,
            norm_cfg=dict(type='SyncBN', requires_grad=True),
        ),
        dict(type='FPN', in_channels=[384] * 4, out_channels=256, num_outs=5),
    ],
)
