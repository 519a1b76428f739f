# dit_pvvae.py on cached latents, without running the encoder in each step. The training latents take 50 GB (4 clips per
# video, each also mirrored). Extract the latents of the training and validation sets first:
#   torchrun --nproc-per-node 8 tools/extract_latents.py configs/dit_pvvae.py work_dirs/pvvae_ucf101_decoder \
#       data/latents/ucf101 --flip --clips-per-video 4 --launcher pytorch
#   torchrun --nproc-per-node 8 tools/extract_latents.py configs/dit_pvvae.py work_dirs/pvvae_ucf101_decoder \
#       data/latents/ucf101_val --split val --launcher pytorch
# We have not run this at full scale.
_base_ = 'dit_pvvae.py'

train_dataloader = dict(dataset=dict(_delete_=True, type='LatentDataset', data_root='data/latents/ucf101'))
val_dataloader = dict(
    dataset=dict(_delete_=True, type='LatentDataset', data_root='data/latents/ucf101_val', test_mode=True)
)
