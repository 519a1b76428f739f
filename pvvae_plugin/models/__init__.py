from .data_preprocessor import VideoDataPreprocessor
from .discriminators import PatchDiscriminator3D
from .dit import LatentDiT
from .latent_video_generator import LatentVideoGenerator
from .losses import LPIPS, AdversarialLoss, PredictiveReconLoss
from .vae import DiagonalGaussian, DiffusersVAE, PredictiveOutput, PredictiveVAE, VideoVAE
from .video_autoencoder import VideoAutoencoder

__all__ = [
    'DiffusersVAE',
    'LPIPS',
    'AdversarialLoss',
    'DiagonalGaussian',
    'LatentDiT',
    'LatentVideoGenerator',
    'PatchDiscriminator3D',
    'PredictiveOutput',
    'PredictiveReconLoss',
    'PredictiveVAE',
    'VideoAutoencoder',
    'VideoDataPreprocessor',
    'VideoVAE',
]
