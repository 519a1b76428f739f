# What a generator's run does otherwise than a VAE's: it measures the latents first, keeps the VAE out of checkpoints,
# averages the head (0.9999, as Latte), and draws samples at each validation.
_base_ = 'default_runtime.py'

# A checkpoint of the paper-size head takes 11 GB: weights, their averages, AdamW's two moments.
default_hooks = dict(checkpoint=dict(interval=10000))
custom_hooks = [
    dict(type='StartCheckHook'),
    dict(type='FiniteLossHook'),
    dict(type='CostEstimateHook'),
    dict(type='FrozenBackboneHook'),
    dict(type='LatentStatisticsHook'),
    dict(type='TrainedWeightsEMAHook', module='head', decay=0.9999),
    dict(type='GenerationVisualizationHook', num_clips=8, steps=100),
    dict(type='RunRecordHook'),
    dict(type='SkippedClipsHook'),
]

# A test makes as many videos as the paper, by its sampler, once for all metrics; guidance is ours.
test_cfg = dict(type='GenerationLoop', num_samples=2048, batch_size=8, sampling=dict(steps=100, guidance=1.0))
i3d = dict(type='I3DTorchScript', weights='weights/i3d_torchscript.pt')
