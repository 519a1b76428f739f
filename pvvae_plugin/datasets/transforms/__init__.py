"""Transforms of clips: each works on ``results['frames']`` and draws from ``results['rng']`` alone."""

from .future_drop import FutureDropSampler
from .packing import PackClip
from .spatial import CenterCropClip, RandomCropClip, RandomFlipClip, ResizeClip
from .time_reverse import RandomTimeReverse

__all__ = [
    'CenterCropClip',
    'FutureDropSampler',
    'PackClip',
    'RandomCropClip',
    'RandomFlipClip',
    'RandomTimeReverse',
    'ResizeClip',
]
