"""Metrics: thin shells over :mod:`pvvae_plugin.functional`."""

from .flow_loss import FlowLoss
from .future_prediction import FuturePrediction, format_prediction_table
from .fvd import FVD, ProxyFVD
from .kvd import KVD
from .latent_temporal_distance import LatentTemporalDistance
from .protocols import PROTOCOLS, Protocol, resolve_protocol
from .set_metric import summary_line
from .video_inception_score import VideoInceptionScore
from .video_reconstruction import VideoReconstruction

__all__ = [
    'FVD',
    'KVD',
    'PROTOCOLS',
    'FlowLoss',
    'FuturePrediction',
    'LatentTemporalDistance',
    'Protocol',
    'ProxyFVD',
    'VideoInceptionScore',
    'VideoReconstruction',
    'format_prediction_table',
    'resolve_protocol',
    'summary_line',
]
