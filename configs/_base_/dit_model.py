# The paper's generator: a 28-layer Latte-style transformer of one token for each of 5 x 16 x 16 latents, on the frozen
# VAE of stage 3. 674 M parameters, 1.16 TFLOP a call for 17 x 256 x 256 (python tools/analysis/get_flops.py
# configs/dit_pvvae.py). Width and heads are Latte-XL's.
_base_ = 'pvvae_model.py'

model = dict(
    _delete_=True,
    type='LatentVideoGenerator',
    backbone=_base_.model.backbone,
    # A checkpoint, or the work directory of the run that trained the VAE. Other VAEs than the paper's go here as well.
    backbone_checkpoint='work_dirs/pvvae_ucf101_decoder',
    head=dict(type='LatentDiT', latent_channels=64, num_classes=None, size='XL'),
    time_sampling='uniform',
    class_dropout=0.1,
)
