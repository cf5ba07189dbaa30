# UperNet with a ResNet, the usual recipe of mmsegmentation: SGD, 160k iterations, batch 16.
_base_ = './xcit_160k.py'

optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='SGD', lr=0.01, momentum=0.9, weight_decay=5e-4),
    paramwise_cfg=dict(_delete_=True),
)
param_scheduler = [
    dict(type='PolyLR', eta_min=1e-4, power=0.9, by_epoch=False, begin=0, end=160000)
]
