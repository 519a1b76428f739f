"""Networks whose features or class probabilities are compared by video metrics."""

from .base import FeatureExtractor, build_extractor
from .c3d import C3D
from .efficientnet import EfficientNetLite0
from .i3d import I3D
from .i3d_torchscript import I3DTorchScript
from .motion_features import MotionFeatures
from .transnet import TransNetV2
from .videomae import VideoMAE

__all__ = [
    'C3D',
    'I3D',
    'EfficientNetLite0',
    'FeatureExtractor',
    'I3DTorchScript',
    'MotionFeatures',
    'TransNetV2',
    'VideoMAE',
    'build_extractor',
]
