# Stage 2 on UCF101: predictive training of the paper-size VAE. Start it from stage 1 with
#   --cfg-options load_from=work_dirs/pvvae_images
# Not run at full scale by us.
_base_ = [
    '_base_/pvvae_model.py',
    '_base_/ucf101.py',
    '_base_/schedule_50k.py',
    '_base_/default_runtime.py',
]
