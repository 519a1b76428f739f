# The paper's baseline: the same network and schedule, without dropped groups and without the motion-aware loss.
_base_ = 'pvvae_ucf101.py'

model = dict(loss=dict(diff_weight=0.0))

train_pipeline = [step for step in _base_.train_pipeline if step['type'] != 'FutureDropSampler']
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
