_base_ = [
    '../_base_/models/retinanet_fpn.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/layer-decay_1x.py',
    '../_base_/default_runtime_det.py',
]

# Not published. The checkpoint is the file 1evhBjla4Nth7LawW2PAXnGEcpv3YBWEC on Google Drive,
# linked in the README of dvit_repo; its mean and deviation are 0.5.
model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),
    backbone=dict(
        type='attnpool_backbones.DeepViT',
        arch='s',
        out_indices=(7, 10, 15),
        drop_path_rate=0.2,
        out_norm='all',
        with_cp=True,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/DViT_82_16b.pth.tar'),
    ),
    neck=[
        dict(
            type='attnpool_backbones.ScalePyramid',
            in_channels=396,
            out_strides=(8, 16, 32),
            norm_cfg=dict(type='SyncBN', requires_grad=True),
        ),
        dict(
            type='FPN',
            in_channels=[396] * 3,
            out_channels=256,
            add_extra_convs='on_input',
            num_outs=5,
        ),
    ],
)
