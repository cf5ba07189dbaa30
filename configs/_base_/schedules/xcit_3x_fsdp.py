# As xcit_3x.py, for models whose optimizer does not fit beside them: parameters, gradients and
# optimizer states are spread over the processes (FSDP, arXiv 2304.11277).
_base_ = './xcit_3x.py'

strategy = dict(type='attnpool_backbones.ShardedStrategy')
