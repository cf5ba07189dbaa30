# UperNet in 160k iterations with learning rates that fall from the last block to the stem
# (layer-wise decay, arXiv 2106.08254).
_base_ = './metaformer_160k.py'

optim_wrapper = dict(
    constructor='attnpool_backbones.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(_delete_=True, decay_rate=0.85),
)
