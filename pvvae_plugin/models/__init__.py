from .data_preprocessor import VideoDataPreprocessor
from .discriminators import PatchDiscriminator3D
from .losses import AdversarialLoss, PredictiveReconLoss
from .vae import DiagonalGaussian, PredictiveOutput, PredictiveVAE
from .video_autoencoder import VideoAutoencoder

__all__ = [
    'AdversarialLoss',
    'DiagonalGaussian',
    'PatchDiscriminator3D',
    'PredictiveOutput',
    'PredictiveReconLoss',
    'PredictiveVAE',
    'VideoAutoencoder',
    'VideoDataPreprocessor',
]
