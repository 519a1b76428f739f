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

# A test generates as many videos as the paper and compares them with real ones. The weights must be there:
# docs/metrics.md says which. Neither guidance nor the protocol beyond frames and number are the paper's.
test_dataloader = _base_.val_dataloader
test_cfg = dict(type='GenerationLoop', num_samples=2048, batch_size=8, sampling=dict(steps=100, guidance=1.0))
i3d = dict(type='I3DTorchScript', weights='weights/i3d_torchscript.pt')
reference = dict(dataset=_base_.real_clips)
test_evaluator = [
    dict(type='FVD', extractor=i3d, protocol='paper', reference=reference),
    dict(type='KVD', extractor=i3d, protocol='paper', reference=reference),
]
