# Ablation: predictive training without the motion-aware difference loss.
_base_ = 'pvvae_ucf101.py'

model = dict(loss=dict(diff_weight=0.0))
