from .posterior import DiagonalGaussian
from .predictive_vae import PredictiveOutput, PredictiveVAE

__all__ = ['DiagonalGaussian', 'PredictiveOutput', 'PredictiveVAE']
