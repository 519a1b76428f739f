# The paper's generator with components of more recent video transformers (ours): rotary position embedding, RMS norms,
# normalized queries and keys, SwiGLU, and logit-normal training times, which favor the middle of the path (Stable
# Diffusion 3). Depth, width and tokens match dit_pvvae.py, so the two can be compared. We have not run this at full
# scale.
_base_ = 'dit_pvvae.py'

model = dict(
    head=dict(rope=True, norm='rms', qk_norm=True, swiglu=True),
    time_sampling='logit-normal',
)
