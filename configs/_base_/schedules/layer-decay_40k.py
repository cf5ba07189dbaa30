# Semantic FPN in 40k iterations, batch 32, with learning rates that fall from the last block to the
# stem (layer-wise decay, arXiv 2106.08254).
_base_ = './poolformer_40k.py'

optim_wrapper = dict(
    constructor='attnpool_backbones.LayerDecayOptimWrapperConstructor',
    optimizer=dict(weight_decay=0.05),
    paramwise_cfg=dict(decay_rate=0.85),
)
