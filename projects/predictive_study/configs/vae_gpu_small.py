# The VAE of the study on one GPU: 17 x 64 x 64 clips, 5 x 8 x 8 latents of 32 channels. Not yet trained at this size.
_base_ = 'vae_tiny.py'

model = dict(
    backbone=dict(
        encoder_widths=(64, 128, 256),
        decoder_widths=(64, 128, 256),
        encoder_blocks=2,
        decoder_blocks=2,
        strides=((2, 2), (2, 2)),
        patch_size=2,
    )
)

train_dataloader = dict(batch_size=16, num_workers=8, pin_memory=True, dataset=dict(clip_len=17, size=64))
val_dataloader = dict(num_workers=4, pin_memory=True, dataset=dict(length=512, clip_len=17, size=64))
test_dataloader = val_dataloader
test_evaluator = [
    dict(type='VideoReconstruction'),
    dict(type='ProxyFVD', protocol=dict(base='paper', num_samples=512), appearance_size=128),
    dict(type='FuturePrediction'),
    dict(type='LatentTemporalDistance'),
]

train_cfg = dict(max_iters=20000, val_interval=20000)
optim_wrapper = dict(vae=dict(dtype='bfloat16', optimizer=dict(lr=5e-4)))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=500),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.1, by_epoch=False, begin=500),
]
