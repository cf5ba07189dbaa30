# As layer-decay_1x.py, in 36 epochs.
_base_ = './xcit_3x.py'

optim_wrapper = dict(
    constructor='attnpool_backbones.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(_delete_=True, decay_rate=0.85),
)
