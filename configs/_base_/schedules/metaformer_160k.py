# UperNet recipe for ConvFormer and CAFormer: AdamW 1e-4, 160k iterations, batch 16 (8 GPUs x 2).
# Weight decay and warm-up of the published runs are not known; these are ConvNeXt's.
_base_ = './xcit_160k.py'

optim_wrapper = dict(optimizer=dict(lr=1e-4, weight_decay=0.05))
