# dit_pvvae.py with FSDP, for heads that do not fit on one GPU: the head's weights, gradients and optimizer states are
# sharded across the GPUs. Everything else is unchanged, including the checkpoints.
#   bash tools/dist_train.sh configs/dit_pvvae_fsdp.py 8
# We have not run this at full scale.
_base_ = 'dit_pvvae.py'

strategy = dict(type='GeneratorFSDPStrategy')
