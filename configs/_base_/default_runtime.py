# Settings that all runs share: logging, checkpoints, visualization, checks and seeds.
_base_ = 'hooks.py'

default_scope = 'pvvae_plugin'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='AtomicCheckpointHook', interval=1000, max_keep_ckpts=3),
)
custom_hooks = [
    *_base_.check_hooks,
    dict(type='TrainedWeightsEMAHook', module='backbone', decay=0.999),
    dict(type='PredictionVisualizationHook', num_clips=4),
    *_base_.record_hooks,
    dict(type='TrainingHealthHook'),
]

visualizer = dict(
    type='Visualizer',
    vis_backends=[dict(type='CurvesVisBackend'), dict(type='VideoTensorboardVisBackend')],
)
log_processor = dict(type='ShortLogProcessor', by_epoch=False, window_size=50)
log_level = 'INFO'

env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
model_wrapper_cfg = dict(type='SubmoduleDistributedDataParallel')

# One seed for the weights, the order of the clips, the dropped groups and the noise.
randomness = dict(seed=0)

# A checkpoint, or the work directory of an earlier stage (its last checkpoint is loaded).
load_from = None
resume = False
