# Stage 3: fine-tune the decoder with the GAN loss from the first step. The encoder is frozen and nothing is dropped.
_base_ = 'pvvae_ucf101.py'

load_from = 'work_dirs/pvvae_ucf101'

model = dict(freeze_encoder=True, adversarial=dict(start_iter=0))

train_pipeline = [step for step in _base_.train_pipeline if step['type'] != 'FutureDropSampler']
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
