# Ablation: dropped latents are replaced by Gaussian noise instead of the learnable token.
_base_ = 'pvvae_ucf101.py'

model = dict(backbone=dict(padding='gaussian'))
