# Hooks grouped by purpose. Configs combine these lists in this order and add their own hooks in between.

# Checks before the first step and at each step.
check_hooks = [
    dict(type='StartCheckHook'),
    dict(type='FiniteLossHook'),
    dict(type='CostEstimateHook'),
]
# For a generator on a frozen VAE: measure the latent statistics first and do not save the VAE in checkpoints.
latent_hooks = [
    dict(type='FrozenBackboneHook'),
    dict(type='LatentStatisticsHook'),
]
# Records of the run and of the clips it skipped.
record_hooks = [
    dict(type='RunRecordHook'),
    dict(type='SkippedClipsHook'),
]
