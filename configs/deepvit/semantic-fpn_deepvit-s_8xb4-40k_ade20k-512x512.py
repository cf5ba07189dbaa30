_base_ = [
    '../_base_/models/semantic-fpn.py',
    '../_base_/datasets/ade20k_512x512_multiple.py',
    '../_base_/schedules/layer-decay_40k.py',
    '../_base_/default_runtime_seg.py',
]

# Not published. The checkpoint is the file 1evhBjla4Nth7LawW2PAXnGEcpv3YBWEC on Google Drive,
# linked in the README of dvit_repo; its mean and deviation are 0.5.
model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),
    backbone=dict(
        type='attnpool_backbones.DeepViT',
        arch='s',
        drop_path_rate=0.2,
        out_norm='all',
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/DViT_82_16b.pth.tar'),
    ),
    neck=[
        dict(
            type='attnpool_backbones.ScalePyramid',
            in_channels=396,
            norm_cfg=dict(type='SyncBN', requires_grad=True),
        ),
        dict(type='FPN', in_channels=[396] * 4, out_channels=256, num_outs=4),
    ],
)
