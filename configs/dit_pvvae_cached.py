# dit_pvvae.py without an encoder at work in each step: from latents that were encoded once, 50 GB of 4 clips a video,
# each also mirrored. Make those of the training and the validation set first:
#   torchrun --nproc-per-node 8 tools/extract_latents.py configs/dit_pvvae.py work_dirs/pvvae_ucf101_decoder \
#       data/latents/ucf101 --flip --clips-per-video 4 --launcher pytorch
#   torchrun --nproc-per-node 8 tools/extract_latents.py configs/dit_pvvae.py work_dirs/pvvae_ucf101_decoder \
#       data/latents/ucf101_val --split val --launcher pytorch
# Not run at full scale by us.
_base_ = 'dit_pvvae.py'

train_dataloader = dict(dataset=dict(_delete_=True, type='LatentDataset', data_root='data/latents/ucf101'))
val_dataloader = dict(
    dataset=dict(_delete_=True, type='LatentDataset', data_root='data/latents/ucf101_val', test_mode=True)
)
