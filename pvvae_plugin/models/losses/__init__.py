from .adversarial_loss import AdversarialLoss, adaptive_weight
from .lpips import LPIPS
from .predictive_recon_loss import PredictiveReconLoss, frame_difference_loss

__all__ = ['LPIPS', 'AdversarialLoss', 'PredictiveReconLoss', 'adaptive_weight', 'frame_difference_loss']
