# Ablation: noise instead of the learnable token in place of dropped latents.
_base_ = 'pvvae_ucf101.py'

model = dict(backbone=dict(padding='gaussian'))
