"""MMEngine metrics: thin wrappers around :mod:`pvvae_plugin.functional`."""

from .class_accuracy import ClassAccuracy
from .flow_loss import FlowLoss
from .future_prediction import FuturePrediction, format_prediction_table
from .fvd import FVD
from .kvd import KVD
from .latent_temporal_distance import LatentTemporalDistance
from .protocols import PROTOCOLS, Protocol, resolve_protocol
from .proxies import ProxyFVD, ProxyKVD
from .set_metric import summary_line
from .video_inception_score import VideoInceptionScore
from .video_reconstruction import VideoReconstruction

__all__ = [
    'FVD',
    'KVD',
    'PROTOCOLS',
    'ClassAccuracy',
    'FlowLoss',
    'FuturePrediction',
    'LatentTemporalDistance',
    'Protocol',
    'ProxyFVD',
    'ProxyKVD',
    'VideoInceptionScore',
    'VideoReconstruction',
    'format_prediction_table',
    'resolve_protocol',
    'summary_line',
]
