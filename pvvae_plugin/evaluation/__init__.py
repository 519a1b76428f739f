"""Metrics: thin shells over :mod:`pvvae_plugin.functional`."""

from .flow_loss import FlowLoss
from .future_prediction import FuturePrediction, format_prediction_table
from .video_reconstruction import VideoReconstruction

__all__ = ['FlowLoss', 'FuturePrediction', 'VideoReconstruction', 'format_prediction_table']
