# Image-to-video and video continuation (ours): half of the training clips are conditioned on their first latent frames,
# at least 1 and at most all but one. To start from a trained generator, add
#   --cfg-options load_from=work_dirs/dit_pvvae
# We have not run this at full scale.
_base_ = 'dit_pvvae.py'

model = dict(condition_prob=0.5)
