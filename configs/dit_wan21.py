# Baseline of the paper: its generator on the latents of Wan2.1's VAE instead of PV-VAE's.
# We have not run this at full scale.
_base_ = ['dit_pvvae.py', '_base_/wan21_vae.py']

model = dict(
    backbone=dict(_delete_=True, **_base_.backbone),
    backbone_checkpoint=None,  # the backbone loads its own weights
    head=dict(latent_channels=16),
)
