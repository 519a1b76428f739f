# dit_pvvae.py with the head's weights, gradients and optimiser states shared out among the GPUs (FSDP), for heads that
# do not fit on one. All else is as without, checkpoints included.
#   bash tools/dist_train.sh configs/dit_pvvae_fsdp.py 8
# Not run at full scale by us.
_base_ = 'dit_pvvae.py'

strategy = dict(type='GeneratorFSDPStrategy')
