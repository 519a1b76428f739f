"""Metrics: thin shells over :mod:`pvvae_plugin.functional`."""

from .future_prediction import FuturePrediction, format_prediction_table
from .video_reconstruction import VideoReconstruction

__all__ = ['FuturePrediction', 'VideoReconstruction', 'format_prediction_table']
