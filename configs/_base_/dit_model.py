# The paper's generator: a 28-layer Latte-style transformer on the latents of the frozen VAE of stage 3, with one token
# per latent (5 x 16 x 16). 674 M parameters, 1.16 TFLOP per call for 17 x 256 x 256 (python tools/analysis/get_flops.py
# configs/dit_pvvae.py). The width and the number of heads are those of Latte-XL.
_base_ = 'pvvae_model.py'

model = dict(
    _delete_=True,
    type='LatentVideoGenerator',
    backbone=_base_.model.backbone,
    # A checkpoint, or the work directory of the run that trained the VAE. Any other VAE can be used here too.
    backbone_checkpoint='work_dirs/pvvae_ucf101_decoder',
    head=dict(type='LatentDiT', latent_channels=64, num_classes=None, size='XL'),
    time_sampling='uniform',
    class_dropout=0.1,
)
