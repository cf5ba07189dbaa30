# As default_runtime_det.py, for runs of minutes: more lines of log, one checkpoint kept.
default_scope = 'mmdet'
# Every checkpoint is read by the one safe reader, also under the tools of mmdet itself.
custom_imports = dict(imports=['attnpool_backbones.checkpoints.door'], allow_failed_imports=False)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=20),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='attnpool_backbones.SafeCheckpointHook', interval=1, max_keep_ckpts=1),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='DetVisualizationHook'),
)
custom_hooks = [
    dict(type='attnpool_backbones.LoadGuardHook'),
    dict(type='attnpool_backbones.InputLimitsHook'),
    dict(type='attnpool_backbones.InvalidLossHook'),
    dict(type='attnpool_backbones.ResumeCheckHook'),
    dict(type='attnpool_backbones.WorkFolderHook'),
    # A resumed run draws the same random numbers as one that was never interrupted.
    dict(type='attnpool_backbones.RandomStateHook'),
]

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='DetLocalVisualizer', vis_backends=vis_backends, name='visualizer')
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)
log_level = 'INFO'
load_from = None
resume = False
