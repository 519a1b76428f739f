"""Transforms of clips: each works on ``results['frames']`` and draws from ``results['rng']`` alone."""

from .packing import PackClip
from .spatial import CenterCropClip, RandomCropClip, RandomFlipClip, ResizeClip
from .temporal import FutureDropSampler, RandomTimeReverse

__all__ = [
    'CenterCropClip',
    'FutureDropSampler',
    'PackClip',
    'RandomCropClip',
    'RandomFlipClip',
    'RandomTimeReverse',
    'ResizeClip',
]
