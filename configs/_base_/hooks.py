# Hooks by purpose. Configs put them together, in this order, with the ones of their own in between.

# Before the first step, and at each one.
check_hooks = [
    dict(type='StartCheckHook'),
    dict(type='FiniteLossHook'),
    dict(type='CostEstimateHook'),
]
# Of a generator on a frozen VAE: measure its latents first, and keep it out of checkpoints.
latent_hooks = [
    dict(type='FrozenBackboneHook'),
    dict(type='LatentStatisticsHook'),
]
# What was run, on which clips.
record_hooks = [
    dict(type='RunRecordHook'),
    dict(type='SkippedClipsHook'),
]
