# falling_bars.py in MMEngine's pure-Python form, where types are classes.
from example_project import FallingBars, WithAbsoluteError
from mmengine.config import read_base

with read_base():
    from pvvae_plugin.configs.pvvae_demo import *

bars = dict(type=FallingBars, length=1000, size=32, clip_len=9)

model.update(loss=dict(type=WithAbsoluteError, abs_weight=0.5))
train_dataloader.dataset = dict(**bars, pipeline=train_dataloader.dataset.pipeline)
val_dataloader.dataset = dict(**bars, pipeline=val_dataloader.dataset.pipeline, test_mode=True)
