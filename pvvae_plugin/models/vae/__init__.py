from .base import PredictiveOutput, VideoVAE
from .diffusers_vae import DiffusersVAE
from .posterior import DiagonalGaussian
from .predictive_vae import PredictiveVAE

__all__ = ['DiagonalGaussian', 'DiffusersVAE', 'PredictiveOutput', 'PredictiveVAE', 'VideoVAE']
