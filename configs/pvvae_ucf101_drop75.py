# Ablation: at most 75% of the later groups are dropped (paper: 100%).
_base_ = 'pvvae_ucf101.py'

train_pipeline = [
    dict(step, max_drop_ratio=0.75) if step['type'] == 'FutureDropSampler' else step for step in _base_.train_pipeline
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
