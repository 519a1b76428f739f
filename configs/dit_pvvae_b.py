# A smaller and shorter run than the paper's (ours): LatentDiT-B for 100K steps. We have not run this at full scale.
_base_ = 'dit_pvvae.py'

model = dict(head=dict(size='B'))
train_cfg = dict(max_iters=100000)
