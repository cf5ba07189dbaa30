# AdamW in 12 epochs with learning rates that fall from the last block to the stem (layer-wise
# decay, arXiv 2106.08254): ours, published for no model here. A config sets `decay_rate` closer to
# 1 the deeper its backbone is.
_base_ = './poolformer_1x.py'

optim_wrapper = dict(
    constructor='attnpool_backbones.LayerDecayOptimWrapperConstructor',
    optimizer=dict(lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(decay_rate=0.85),
)
