# Predictive fine-tuning of Wan2.2's VAE (ours). It starts from the published weights instead of stage 1.
#   bash tools/dist_train.sh configs/pvvae_wan22_finetune.py 8
#   python tools/test.py configs/pvvae_wan22_finetune.py pretrained    # the published weights, before any training
# We have not run this at full scale.
_base_ = ['pvvae_ucf101.py', '_base_/wan22_vae.py']

model = dict(backbone=dict(_delete_=True, **_base_.backbone))
