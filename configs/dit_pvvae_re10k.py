# The paper's generator on RealEstate10K: unconditional, with the UCF101 settings and the VAE trained on UCF101. Set
# model.backbone_checkpoint to use another VAE. We have not run this at full scale.
_base_ = [
    '_base_/dit_model.py',
    '_base_/realestate10k.py',
    '_base_/schedule_250k.py',
    '_base_/generator_runtime.py',
]

train_dataloader = dict(batch_size=8)
val_dataloader = dict(batch_size=8)
val_evaluator = [dict(type='FlowLoss')]
val_cfg = dict()

# Testing generates videos (_base_/generator_runtime.py) and compares them with real ones. It needs the weights listed
# in docs/evaluate.md. The protocol's numbers of frames and clips are the paper's.
test_dataloader = _base_.val_dataloader
reference = dict(dataset=_base_.real_clips)
test_evaluator = [
    dict(type='FVD', extractor=_base_.i3d, protocol='paper', reference=reference),
    dict(type='KVD', extractor=_base_.i3d, protocol='paper', reference=reference),
]
