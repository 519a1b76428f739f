from .base import PredictiveOutput, VideoVAE
from .posterior import DiagonalGaussian
from .predictive_vae import PredictiveVAE

__all__ = ['DiagonalGaussian', 'PredictiveOutput', 'PredictiveVAE', 'VideoVAE']
