"""Transforms of clips. Each changes ``results['frames']`` and draws only from ``results['rng']``."""

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
