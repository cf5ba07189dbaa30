# Semantic FPN recipe of the ResNet rows in PoolFormer's table (arXiv 2111.11418): SGD.
_base_ = './poolformer_40k.py'

optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='SGD', lr=0.02, momentum=0.9, weight_decay=5e-4)
)
