# The paper's generator with the parts that later video transformers share, ours: rotary position embedding, RMS norms,
# normalized queries and keys, SwiGLU, and training times that prefer the middle of the path (Stable Diffusion 3).
# Same depth, width and tokens as dit_pvvae.py; compare the two. Not run at full scale by us.
_base_ = 'dit_pvvae.py'

model = dict(
    head=dict(rope=True, norm='rms', qk_norm=True, swiglu=True),
    time_sampling='logit-normal',
)
