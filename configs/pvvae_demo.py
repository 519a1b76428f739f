# A predictive VAE that learns to complete clips of moving shapes. It trains on a CPU in minutes and downloads nothing.
# The network is the paper's with a 4 x 4 patchify stem: 9 x 32 x 32 clips, 3 x 4 x 4 latents with 32 channels.
_base_ = '_base_/default_runtime.py'


model = dict(
    type='VideoAutoencoder',
    backbone=dict(
        type='PredictiveVAE',
        latent_channels=32,
        encoder_widths=(32, 64, 64),
        decoder_widths=(32, 64, 64),
        encoder_blocks=1,
        decoder_blocks=1,
        strides=((2, 2), (2, 1)),
        patch_size=4,
        attention=False,
    ),
    loss=dict(type='PredictiveReconLoss'),
)

train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteClipSampler'),
    dataset=dict(
        type='SyntheticVideoDataset',
        length=100000,
        clip_len=9,
        size=32,
        difficulty='plain',
        seed=0,
        pipeline=[
            dict(type='FutureDropSampler', temporal_ratio=4, max_drop_ratio=1.0),
            dict(type='PackClip'),
        ],
    ),
)
val_dataloader = dict(
    batch_size=32,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='SyntheticVideoDataset',
        length=256,
        clip_len=9,
        size=32,
        difficulty='plain',
        seed=1,
        test_mode=True,
        pipeline=[dict(type='PackClip')],
    ),
)
val_evaluator = [dict(type='VideoReconstruction'), dict(type='FuturePrediction')]
val_cfg = dict()

train_cfg = dict(type='ClipTrainLoop', max_iters=2400, val_interval=600)
optim_wrapper = dict(
    constructor='SubmoduleOptimWrapperConstructor',
    vae=dict(
        type='AutocastOptimWrapper',
        optimizer=dict(type='AdamW', lr=3e-3, betas=(0.9, 0.99), weight_decay=0.01),
        clip_grad=dict(max_norm=1.0),
    ),
)
# The cosine ends with the run: change only train_cfg.max_iters, unless the run is shorter than the warm-up.
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.1, by_epoch=False, begin=100),
]

default_hooks = dict(
    logger=dict(interval=50),
    checkpoint=dict(interval=600, max_keep_ckpts=2),
)
