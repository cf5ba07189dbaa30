_base_ = [
    '../_base_/backbones/patchconvnet-l120.py',
    '../_base_/models/upernet.py',
    '../_base_/datasets/ade20k_512x512_multiple-16.py',
    '../_base_/schedules/xcit_160k.py',
    '../_base_/default_runtime_seg.py',
]
model = _base_.pop('under').upernet
model.backbone.init_cfg = None  # no weights are released; a file of yours goes here
optim_wrapper = dict(type='AmpOptimWrapper', loss_scale='dynamic')
