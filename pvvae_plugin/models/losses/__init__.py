from .adversarial_loss import AdversarialLoss, adaptive_weight
from .predictive_recon_loss import PredictiveReconLoss, frame_difference_loss

__all__ = ['AdversarialLoss', 'PredictiveReconLoss', 'adaptive_weight', 'frame_difference_loss']
