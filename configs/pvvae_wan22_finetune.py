# Predictive training of Wan2.2's VAE: it starts from the published weights instead of stage 1. Ours, not the paper's.
#   bash tools/dist_train.sh configs/pvvae_wan22_finetune.py 8
#   python tools/test.py configs/pvvae_wan22_finetune.py pretrained    # the published weights, before any training
# Not run at full scale by us.
_base_ = ['pvvae_ucf101.py', '_base_/wan22_vae.py']

model = dict(backbone=dict(_delete_=True, **_base_.backbone))
