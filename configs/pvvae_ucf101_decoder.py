# Stage 3: dropping off, encoder frozen, the decoder fine-tuned with the GAN on throughout.
_base_ = 'pvvae_ucf101.py'

load_from = 'work_dirs/pvvae_ucf101'

model = dict(freeze_encoder=True, adversarial=dict(start_iter=0))

train_pipeline = [step for step in _base_.train_pipeline if step['type'] != 'FutureDropSampler']
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
