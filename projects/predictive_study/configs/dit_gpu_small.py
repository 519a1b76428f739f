# The generator of the study on one GPU: LatentDiT-S with 320 tokens per clip. Not yet trained at this size.
_base_ = 'dit_tiny.py'

model = dict(
    backbone=dict(
        encoder_widths=(64, 128, 256),
        decoder_widths=(64, 128, 256),
        encoder_blocks=2,
        decoder_blocks=2,
        strides=((2, 2), (2, 2)),
        patch_size=2,
    ),
    head=dict(_delete_=True, type='LatentDiT', latent_channels=32, num_classes=7, size='S', attention='joint'),
)

train_dataloader = dict(batch_size=64, num_workers=4, pin_memory=True)
val_dataloader = dict(num_workers=2)

train_cfg = dict(max_iters=40000, val_interval=2500)
optim_wrapper = dict(head=dict(dtype='bfloat16', optimizer=dict(lr=5e-4)))
param_scheduler = [dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=500)]
default_hooks = dict(checkpoint=dict(interval=2500))

test_dataloader = dict(dataset=dict(clip_len=17, size=64))
test_cfg = dict(num_samples=2048, batch_size=256, sampling=dict(num_inference_steps=50))
real_clips = dict(type='SyntheticVideoDataset', length=4096, size=64, difficulty='plain', seed=2)
proxies = dict(
    protocol=dict(base='paper', num_samples=2048),
    reference=dict(dataset=real_clips, batch_size=64, num_workers=8),
    appearance_size=128,
)
test_evaluator = [dict(type='ProxyFVD', **proxies), dict(type='ProxyKVD', **proxies)]
