# AdamW at 5e-5, linear warm-up, cosine decay to one tenth (paper). Warm-up length, betas and clipping are ours.
train_cfg = dict(type='ClipTrainLoop', max_iters=50000, val_interval=5000)

optim_wrapper = dict(
    constructor='SubmoduleOptimWrapperConstructor',
    vae=dict(
        type='AutocastOptimWrapper',
        dtype='bfloat16',
        optimizer=dict(type='AdamW', lr=5e-5, betas=(0.9, 0.99), weight_decay=0.01),
        clip_grad=dict(max_norm=1.0),
    ),
    discriminator=dict(
        type='AutocastOptimWrapper',
        dtype='bfloat16',
        optimizer=dict(type='AdamW', lr=5e-5, betas=(0.5, 0.99), weight_decay=0.01),
        clip_grad=dict(max_norm=1.0),
    ),
)
# Both optimizers follow the same schedule from iteration 0, so the discriminator, which starts later, starts near its
# full rate. The cosine ends with the run: change only train_cfg.max_iters for a longer or shorter run.
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=1000),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.1, by_epoch=False, begin=1000),
]
# --auto-scale-lr scales the learning rate relative to this global batch size (8 GPUs x 4 clips, ours).
auto_scale_lr = dict(base_batch_size=32, enable=False)
