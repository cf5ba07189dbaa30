_base_ = [
    '../_base_/models/cascade-mask-rcnn_fpn.py',
    '../_base_/datasets/coco_instance_ms.py',
    '../_base_/schedules/layer-decay_3x.py',
    '../_base_/default_runtime_det.py',
]

# Not published. Weights, mean and deviation are timm's. Attention stays within windows of the
# size of pretraining, as MOAT (arXiv 2210.01820) is fine-tuned.
model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),
    backbone=dict(
        type='attnpool_backbones.CoAtNet',
        arch='0_rw',
        drop_path_rate=0.2,
        windows=(None, None, 14, 7),
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights-maxx/coatnet_0_rw_224_sw-a6439706.pth',
        ),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
