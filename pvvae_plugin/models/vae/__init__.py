from .diffusers_vae import DiffusersVAE
from .posterior import DiagonalGaussian
from .predictive_vae import PredictiveVAE
from .video_vae import PredictiveOutput, VideoVAE

__all__ = ['DiagonalGaussian', 'DiffusersVAE', 'PredictiveOutput', 'PredictiveVAE', 'VideoVAE']
