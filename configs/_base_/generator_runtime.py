# What a generator's run does otherwise than a VAE's: it measures the latents first, keeps the VAE out of checkpoints,
# averages the head (0.9999, as Latte), and draws samples at each validation.
_base_ = 'default_runtime.py'

# A checkpoint of the paper-size head takes 11 GB: weights, their averages, AdamW's two moments.
default_hooks = dict(checkpoint=dict(interval=10000))
custom_hooks = [
    *_base_.check_hooks,
    *_base_.latent_hooks,
    dict(type='TrainedWeightsEMAHook', module='head', decay=0.9999),
    dict(type='GenerationVisualizationHook', num_clips=8, num_inference_steps=100),
    *_base_.record_hooks,
]

# A test makes as many videos as the paper, by its sampler, once for all metrics; guidance is ours.
test_cfg = dict(
    type='GenerationLoop', num_samples=2048, batch_size=8, sampling=dict(num_inference_steps=100, guidance_scale=1.0)
)
i3d = dict(type='I3DTorchScript', weights='weights/i3d_torchscript.pt')
