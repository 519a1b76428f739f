# Image to video and continuation, ours: half of the training clips are given their first latent frames, from 1 to all
# but one. It may start from a generator, with --cfg-options load_from=work_dirs/dit_pvvae. Not run at full scale by us.
_base_ = 'dit_pvvae.py'

model = dict(condition_prob=0.5)
