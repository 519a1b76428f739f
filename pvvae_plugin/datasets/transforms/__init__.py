"""Transforms of clips. Each changes ``results['frames']`` and draws only from ``results['rng']``."""

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
