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
]
