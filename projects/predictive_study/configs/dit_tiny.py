# The generator of the study on a CPU. The demo's generator on cached latents, with a constant learning rate, so each
# checkpoint is as good as its number of steps allows. No guidance: samples follow the learned distribution.
_base_ = '../../../configs/dit_demo.py'

train_dataloader = dict(
    batch_size=16, dataset=dict(_delete_=True, type='LatentDataset', data_root='work_dirs/study/latents/train')
)
val_dataloader = dict(
    batch_size=64,
    dataset=dict(_delete_=True, type='LatentDataset', data_root='work_dirs/study/latents/val', test_mode=True),
)

train_cfg = dict(max_iters=4000, val_interval=500)
param_scheduler = [dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100)]
default_hooks = dict(checkpoint=dict(interval=500, max_keep_ckpts=-1))

test_dataloader = _base_.val_dataloader
test_cfg = dict(num_samples=256, batch_size=32, sampling=dict(num_inference_steps=25, guidance_scale=1.0))
real_clips = dict(type='SyntheticVideoDataset', length=512, size=32, difficulty='plain', seed=2)
proxies = dict(
    protocol=dict(base='paper', num_frames=9, num_samples=256),
    reference=dict(dataset=real_clips),
    appearance_size=64,
)
test_evaluator = [dict(type='ProxyFVD', **proxies), dict(type='ProxyKVD', **proxies)]
