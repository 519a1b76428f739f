"""Frames that a generator is to continue, from videos and images."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor

from pvvae_plugin.config.clip_facts import frame_interval, spatial_steps
from pvvae_plugin.datasets import ClipError, read_clip
from pvvae_plugin.datasets.readers.base import is_image, is_video
from pvvae_plugin.functional.conversion import as_video, cover
from pvvae_plugin.registry import TRANSFORMS
from pvvae_plugin.temporal import frames_to_groups, groups_to_frames


def find_sources(path: str) -> list[str]:
    """The file itself, or the videos and images right in a folder, by name.

    Raises:
        FileNotFoundError: If there is nothing at the path.
        ValueError: If it is, or holds, neither a video nor an image.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(f'no file or folder {path!r} with first frames')
    names = sorted(os.listdir(path)) if os.path.isdir(path) else [path]
    files = [os.path.join(path, name) if os.path.isdir(path) else name for name in names if not name.startswith('.')]
    files = [file for file in files if is_image(file) or is_video(file)]
    if not files:
        raise ValueError(f'{path!r} is, or holds, neither a video nor an image that is known by its ending')
    return files


def default_num_given(sources: Sequence[str], num_frames: int, temporal_ratio: int) -> int:
    """Frames to give where nobody says how many: 1 of images, half of the groups, rounded up, of videos."""
    if any(is_image(source) for source in sources):
        return 1
    return groups_to_frames((frames_to_groups(num_frames, temporal_ratio) + 1) // 2, temporal_ratio)


def read_first_frames(cfg: Config, sources: Sequence[str], num_given: int, size: tuple[int, int]) -> Tensor:
    """The first frames of each file, as a config's validation clips are read.

    They are taken at the ``frame_interval`` of its clips, and resized and cropped as in its validation pipeline; where
    that leads to another size, or there is none, they are resized to cover ``size`` and the middle is kept.

    Args:
        cfg: The config.
        sources: Videos and images.
        num_given: Frames ``F`` of each.
        size: Height and width in pixels.

    Returns:
        ``(n, 3, F, H, W)`` in [-1, 1].

    Raises:
        ClipError: If a file cannot be read or has too few frames.
    """
    interval = frame_interval(cfg)
    steps = spatial_steps(cfg, size)
    transforms = None if steps is None else [TRANSFORMS.build(step) for step in steps]
    clips = []
    for source in sources:

        def choose_frames(num_frames: int, source: str = source) -> range:
            span = (num_given - 1) * interval + 1
            if num_frames < span:
                apart = f', {interval} apart,' if interval > 1 else ''
                raise ClipError(
                    source, f'{num_given} frames{apart} are to be given, it has {num_frames}: ask for fewer'
                )
            return range(0, span, interval)

        frames, _ = read_clip(source, choose_frames)
        if transforms is None:
            frames = cover(frames, size)
        else:
            results = {'frames': frames, 'path': source, 'rng': np.random.default_rng(0)}
            for transform in transforms:
                results = transform(results)
            frames = results['frames']
        clips.append(as_video(frames))
    return torch.cat(clips)
