_base_ = [
    '../_base_/backbones/se-resnet101.py',
    '../_base_/models/retinanet_fpn_2019.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/sge_2x.py',
    '../_base_/default_runtime_det.py',
]
model = _base_.pop('under').retinanet
train_dataloader = dict(batch_size=1)
optim_wrapper = dict(optimizer=dict(lr=0.01))
auto_scale_lr = dict(base_batch_size=8)
