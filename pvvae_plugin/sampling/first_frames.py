"""First frames for a generator to continue, read from videos and images."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import print_log
from torch import Tensor

from pvvae_plugin.config.clip_facts import frame_interval, spatial_steps
from pvvae_plugin.datasets import ClipError, read_clip
from pvvae_plugin.datasets.folders import describe_left_out, list_left_out
from pvvae_plugin.datasets.readers.base import is_image, is_video
from pvvae_plugin.functional.conversion import as_video, cover
from pvvae_plugin.registry import TRANSFORMS
from pvvae_plugin.temporal import frames_to_groups, groups_to_frames


def find_sources(path: str) -> list[str]:
    """Return the file itself, or the videos and images of a folder (without subfolders) sorted by name.

    Raises:
        FileNotFoundError: If the path does not exist.
        ValueError: If the path is not, and does not contain, a video or an image.

    Example:
        >>> from PIL import Image
        >>> from pvvae_plugin.sampling import find_sources
        >>> for name in ('b.png', 'a.jpg'):
        ...     Image.new('RGB', (48, 32)).save(name)
        >>> find_sources('.')
        ['./a.jpg', './b.png']
    """
    if not os.path.exists(path):
        raise FileNotFoundError(f'first frames not found: no file or folder {path!r}')
    if os.path.isdir(path):
        files = [os.path.join(path, name) for name in sorted(os.listdir(path)) if not name.startswith('.')]
    else:
        files = [path]
    files = [file for file in files if is_image(file) or is_video(file)]
    left_out = list_left_out(path, files, images=True, subfolders=False) if os.path.isdir(path) else []
    if not files:
        there = f', but {"; ".join(map(str, left_out))}' if left_out else ''
        raise ValueError(f'no video or image at {path!r}{there}: files are recognized by their extension')
    if left_out:
        print_log(describe_left_out(path, left_out), logger='current', level=logging.WARNING)
    return files


def default_num_given(sources: Sequence[str], num_frames: int, temporal_ratio: int) -> int:
    """Return the default number of first frames: 1 for images, half of the groups (rounded up) for videos.

    Example:
        >>> from pvvae_plugin.sampling import default_num_given
        >>> default_num_given(['a.png'], num_frames=17, temporal_ratio=4)
        1
        >>> default_num_given(['a.mp4'], num_frames=17, temporal_ratio=4)  # 3 of 5 groups
        9
    """
    if any(is_image(source) for source in sources):
        return 1
    return groups_to_frames((frames_to_groups(num_frames, temporal_ratio) + 1) // 2, temporal_ratio)


def read_first_frames(cfg: Config, sources: Sequence[str], num_given: int, size: tuple[int, int]) -> Tensor:
    """Read the first frames of videos and images, preprocessed like the validation clips of a config.

    Frames are read at the ``frame_interval`` of the config and go through the resizing and cropping of its validation
    pipeline. Without such a pipeline, or if it yields another size, they are resized to cover ``size`` and cropped at
    the center.

    Args:
        cfg: The config.
        sources: Videos and images.
        num_given: Number of frames ``F`` per file.
        size: Height and width in pixels.

    Returns:
        ``(n, 3, F, H, W)`` in [-1, 1].

    Raises:
        ClipError: If a file cannot be read or has too few frames.

    Example:
        >>> from PIL import Image
        >>> from pvvae_plugin.config import read_config
        >>> from pvvae_plugin.sampling import read_first_frames
        >>> Image.new('RGB', (64, 48), (255, 255, 255)).save('white.png')
        >>> frames = read_first_frames(read_config('dit_demo'), ['white.png'], num_given=1, size=(32, 32))
        >>> frames.shape, frames.min()
        (torch.Size([1, 3, 1, 32, 32]), tensor(1.))
    """
    interval = frame_interval(cfg)
    steps = spatial_steps(cfg, size)
    transforms = None if steps is None else [TRANSFORMS.build(step) for step in steps]
    clips = []
    for source in sources:

        def choose_frames(num_frames: int, source: str = source) -> range:
            span = (num_given - 1) * interval + 1
            if num_frames < span:
                apart = f' at an interval of {interval}' if interval > 1 else ''
                raise ClipError(
                    source, f'{num_given} first frames{apart} do not fit into {num_frames} frames: use fewer'
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
