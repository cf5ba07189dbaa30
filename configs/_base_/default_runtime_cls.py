# Image classifiers need neither mmdet nor mmseg.
default_scope = 'mmengine'
# Every checkpoint is read by the one safe reader.
custom_imports = dict(imports=['attnpool_backbones.checkpoints.door'], allow_failed_imports=False)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='attnpool_backbones.SafeCheckpointHook', interval=1, max_keep_ckpts=2),
    sampler_seed=dict(type='DistSamplerSeedHook'),
)
custom_hooks = [
    dict(type='attnpool_backbones.LoadGuardHook'),
    dict(type='attnpool_backbones.InputLimitsHook'),
    dict(type='attnpool_backbones.InvalidLossHook'),
    dict(type='attnpool_backbones.ResumeCheckHook'),
    dict(type='attnpool_backbones.WorkFolderHook'),
    # A resumed run draws the same random numbers as one that was never interrupted.
    dict(type='attnpool_backbones.RandomStateHook'),
    dict(type='attnpool_backbones.ClassTokenMemoryHook'),
]

env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='Visualizer', vis_backends=vis_backends, name='visualizer')
log_processor = dict(by_epoch=True)
log_level = 'INFO'
load_from = None
resume = False
