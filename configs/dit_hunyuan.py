# The paper's generator on the latents of HunyuanVideo's VAE instead of PV-VAE's: one of its baselines.
# Not run at full scale by us.
_base_ = ['dit_pvvae.py', '_base_/hunyuan_vae.py']

model = dict(
    backbone=dict(_delete_=True, **_base_.backbone),
    backbone_checkpoint=None,  # the backbone reads its weights by itself
    head=dict(latent_channels=16),
)
