# Stage 2 on UCF101: predictive training of the paper-size VAE. Start from stage 1 with
#   --cfg-options load_from=work_dirs/pvvae_images
# We have not run this at full scale.
_base_ = [
    '_base_/pvvae_model.py',
    '_base_/ucf101.py',
    '_base_/schedule_50k.py',
    '_base_/default_runtime.py',
]

# Testing also measures rFVD and LPIPS. It needs the weights listed in docs/evaluate.md.
test_dataloader = _base_.val_dataloader
test_cfg = dict()
test_evaluator = [
    dict(type='VideoReconstruction', lpips=dict(type='LPIPS', net='alex')),
    dict(type='FVD', extractor=dict(type='I3DTorchScript', weights='weights/i3d_torchscript.pt'), protocol='paper'),
    dict(type='FuturePrediction'),
    dict(type='LatentTemporalDistance'),
]
