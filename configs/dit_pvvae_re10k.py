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
