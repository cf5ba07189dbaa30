# AdamW and epochs for data of one's own; a config adds `max_epochs`, the learning rate and its
# curve. The best checkpoint is kept beside the last one. The runtime is here, too: it counts in
# epochs and logs small data more often.
train_cfg = dict(type='attnpool_backbones.ResumableEpochBasedTrainLoop', val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-4, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=5.0),
)

default_scope = 'mmseg'
# Every checkpoint is read by the one safe reader, also under the tools of mmseg itself.
custom_imports = dict(imports=['attnpool_backbones.checkpoints.door'], allow_failed_imports=False)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=20, log_metric_by_epoch=True),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='attnpool_backbones.SafeCheckpointHook',
        by_epoch=True,
        interval=1,
        max_keep_ckpts=1,
        save_best='mIoU',
        rule='greater',
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'),
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
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='SegLocalVisualizer', vis_backends=vis_backends, name='visualizer')
log_processor = dict(by_epoch=True)
log_level = 'INFO'
load_from = None
resume = False
tta_model = dict(type='SegTTAModel')
