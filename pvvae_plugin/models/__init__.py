from .data_preprocessor import VideoDataPreprocessor
from .discriminators import PatchDiscriminator3D
from .losses import LPIPS, AdversarialLoss, PredictiveReconLoss
from .vae import DiagonalGaussian, PredictiveOutput, PredictiveVAE
from .video_autoencoder import VideoAutoencoder

__all__ = [
    'LPIPS',
    'AdversarialLoss',
    'DiagonalGaussian',
    'PatchDiscriminator3D',
    'PredictiveOutput',
    'PredictiveReconLoss',
    'PredictiveVAE',
    'VideoAutoencoder',
    'VideoDataPreprocessor',
]
