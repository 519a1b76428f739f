# Runtime settings of generators. Unlike a VAE's run, a generator's run measures the latent statistics first, does not
# save the VAE in its checkpoints, averages the head's weights (EMA 0.9999, like Latte) and samples at each validation.
_base_ = 'default_runtime.py'

# A checkpoint of the paper-size head takes 11 GB: the weights, their EMA and AdamW's two moments.
default_hooks = dict(checkpoint=dict(interval=10000))
custom_hooks = [
    *_base_.check_hooks,
    *_base_.latent_hooks,
    dict(type='TrainedWeightsEMAHook', module='head', decay=0.9999),
    dict(type='GenerationVisualizationHook', num_clips=8, num_inference_steps=100),
    *_base_.record_hooks,
]

# Testing generates as many videos as the paper, with its sampler, once for all metrics. The guidance scale is ours.
test_cfg = dict(
    type='GenerationLoop', num_samples=2048, batch_size=8, sampling=dict(num_inference_steps=100, guidance_scale=1.0)
)
i3d = dict(type='I3DTorchScript', weights='weights/i3d_torchscript.pt')
