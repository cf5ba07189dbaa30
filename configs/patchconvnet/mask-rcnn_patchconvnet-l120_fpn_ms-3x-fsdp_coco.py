_base_ = [
    '../_base_/backbones/patchconvnet-l120.py',
    '../_base_/models/mask-rcnn_fpn.py',
    '../_base_/datasets/coco_instance_ms.py',
    '../_base_/schedules/xcit_3x.py',
    '../_base_/default_runtime_det.py',
]
model = _base_.pop('under').rcnn
model.neck[1].update(_base_.model.neck)
# parameters, gradients and optimizer states spread over the processes (FSDP, arXiv 2304.11277)
strategy = dict(type='attnpool_backbones.ShardedStrategy')
