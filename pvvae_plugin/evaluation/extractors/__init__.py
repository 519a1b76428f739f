"""Networks whose features or class probabilities video metrics compare."""

from .base import FeatureExtractor, build_extractor
from .c3d import C3D
from .i3d import I3D
from .i3d_torchscript import I3DTorchScript
from .videomae import VideoMAE

__all__ = ['C3D', 'I3D', 'FeatureExtractor', 'I3DTorchScript', 'VideoMAE', 'build_extractor']
