# AdamW at a constant 1e-4 for 250K steps (paper). Betas and zero weight decay follow Latte; warm-up and clipping are
# ours.
train_cfg = dict(type='ClipTrainLoop', max_iters=250000, val_interval=10000)

optim_wrapper = dict(
    constructor='SubmoduleOptimWrapperConstructor',
    head=dict(
        type='AutocastOptimWrapper',
        dtype='bfloat16',
        optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.0),
        clip_grad=dict(max_norm=1.0),
    ),
)
param_scheduler = [dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=1000)]
# --auto-scale-lr scales the learning rate relative to this global batch size (the paper's; 8 GPUs x 8 clips).
auto_scale_lr = dict(base_batch_size=64, enable=False)
