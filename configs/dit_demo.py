# A class-conditional generator on the latents of the VAE that tools/quickstart.sh trained: name a motion, get a clip.
_base_ = 'pvvae_demo.py'

model = dict(
    _delete_=True,
    type='LatentVideoGenerator',
    backbone=_base_.model.backbone,
    backbone_checkpoint='work_dirs/quickstart',
    head=dict(type='LatentDiT', latent_channels=16, num_classes=7, depth=4, width=128, heads=4),
)

train_dataloader = dict(batch_size=16, dataset=dict(pipeline=[dict(type='PackClip')]))
val_dataloader = None
val_evaluator = None
val_cfg = None

train_cfg = dict(max_iters=1500)
optim_wrapper = dict(
    _delete_=True,
    constructor='SubmoduleOptimWrapperConstructor',
    head=dict(
        type='AutocastOptimWrapper',
        optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.99), weight_decay=0.0),
        clip_grad=dict(max_norm=1.0),
    ),
)
custom_hooks = [
    dict(type='StartCheckHook'),
    dict(type='FiniteLossHook'),
    dict(type='FrozenBackboneHook'),
    dict(type='LatentStatisticsHook'),
    dict(type='TrainedWeightsEMAHook', module='head', decay=0.999),
]
