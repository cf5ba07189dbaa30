_base_ = [
    '../_base_/models/retinanet_fpn.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/poolformer_1x.py',
    '../_base_/default_runtime_det.py',
]

# Not published: PoolFormer's recipe with the drop path of XCiT.
model = dict(
    backbone=dict(
        type='attnpool_backbones.PatchConvNet',
        arch='s60',
        out_indices=(29, 39, 59),
        drop_path_rate=0.05,
        init_cfg=dict(
            type='Pretrained', checkpoint='https://dl.fbaipublicfiles.com/deit/s60_224_1k.pth'
        ),
    ),
    neck=[
        dict(
            type='attnpool_backbones.ScalePyramid',
            in_channels=384,
            out_strides=(8, 16, 32),
            norm_cfg=dict(type='SyncBN', requires_grad=True),
        ),
        dict(
            type='FPN',
            in_channels=[384] * 3,
            out_channels=256,
            add_extra_convs='on_input',
            num_outs=5,
        ),
    ],
)
optim_wrapper = dict(optimizer=dict(lr=1e-4))
