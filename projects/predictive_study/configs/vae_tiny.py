# The VAE of the study on a CPU. The demo's VAE with the full predictive objective, which the arms then modify.
_base_ = '../../../configs/pvvae_demo.py'

train_cfg = dict(max_iters=2000, val_interval=2000)
default_hooks = dict(checkpoint=dict(interval=500, max_keep_ckpts=1))

test_dataloader = _base_.val_dataloader
test_cfg = dict()
test_evaluator = [
    dict(type='VideoReconstruction'),
    dict(type='ProxyFVD', protocol=dict(base='paper', num_frames=9, num_samples=256), appearance_size=64),
    dict(type='FuturePrediction'),
    dict(type='LatentTemporalDistance'),
]
