# A class-conditional generator on the latents of the VAE that tools/quickstart.sh trained: name a motion, get a clip.
_base_ = 'pvvae_demo.py'

model = dict(
    _delete_=True,
    type='LatentVideoGenerator',
    backbone=_base_.model.backbone,
    backbone_checkpoint='work_dirs/quickstart',
    # 48 tokens a clip: few enough for every one of them to see all others.
    head=dict(type='LatentDiT', latent_channels=32, num_classes=7, depth=4, width=128, heads=4, attention='joint'),
)

train_dataloader = dict(batch_size=32, dataset=dict(pipeline=[dict(type='PackClip')]))
val_evaluator = [dict(type='FlowLoss')]

train_cfg = dict(max_iters=2500, val_interval=500)
optim_wrapper = dict(
    _delete_=True,
    constructor='SubmoduleOptimWrapperConstructor',
    head=dict(
        type='AutocastOptimWrapper',
        optimizer=dict(type='AdamW', lr=2e-3, betas=(0.9, 0.99), weight_decay=0.0),
        clip_grad=dict(max_norm=1.0),
    ),
)
default_hooks = dict(checkpoint=dict(interval=500))
custom_hooks = [
    dict(type='StartCheckHook'),
    dict(type='FiniteLossHook'),
    dict(type='CostEstimateHook'),
    dict(type='FrozenBackboneHook'),
    dict(type='LatentStatisticsHook'),
    dict(type='TrainedWeightsEMAHook', module='head', decay=0.998),
    dict(type='GenerationVisualizationHook', num_clips=7, guidance=2.0),
]
