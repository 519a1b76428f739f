# The demo's VAE and schedule, on this project's dataset and with its loss.
_base_ = 'pvvae_plugin::pvvae_demo.py'
default_scope = 'example_project'

bars = dict(type='example_project.FallingBars', length=1000, size=32, clip_len=9)

model = dict(loss=dict(type='example_project.WithAbsoluteError', abs_weight=0.5))
train_dataloader = dict(dataset=dict(_delete_=True, **bars, pipeline=_base_.train_dataloader.dataset.pipeline))
val_dataloader = dict(
    dataset=dict(_delete_=True, **bars, pipeline=_base_.val_dataloader.dataset.pipeline, test_mode=True)
)
