# The paper's generator on RealEstate10K: unconditional, else as on UCF101. The VAE is the one trained on UCF101; name
# another by model.backbone_checkpoint. Not run at full scale by us.
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

# A test makes videos (_base_/generator_runtime.py) and compares them with real ones. The weights must be there:
# docs/evaluate.md says which. Of the protocol, frames and number are the paper's.
test_dataloader = _base_.val_dataloader
reference = dict(dataset=_base_.real_clips)
test_evaluator = [
    dict(type='FVD', extractor=_base_.i3d, protocol='paper', reference=reference),
    dict(type='KVD', extractor=_base_.i3d, protocol='paper', reference=reference),
]
