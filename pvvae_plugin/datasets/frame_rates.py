"""Frame rates of a dataset's videos, from a small sample. Clips of different rates show motion at different speeds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from statistics import median

from torch.utils.data import Dataset

from .errors import ClipError
from .readers.base import is_video
from .readers.opening import check_readable
from .readers.packet_index import read_header

MAX_SAMPLED = 16  # files that are opened
MAX_RATIO = 1.5  # above it, rates are called different: 24, 25 and 30 are not


def clip_rates(dataset: Dataset) -> dict[str, float]:
    """Return the clips' frames per second by file, from a few evenly spaced videos of a dataset.

    It is the rate of the file divided by the ``frame_interval``. Files without a rate, and clips that are not video
    files, are omitted.

    Example:
        >>> import numpy as np
        >>> from pvvae_plugin.datasets import VideoDataset
        >>> from pvvae_plugin.datasets.frame_rates import clip_rates
        >>> from pvvae_plugin.visualization import write_video
        >>> write_video('videos/a.webm', np.zeros((20, 32, 48, 3), np.uint8), fps=8)
        >>> clip_rates(VideoDataset('videos', clip_len=5, frame_interval=2))
        {'videos/a.webm': 4.0}
    """
    rates = {}
    count = min(len(dataset), MAX_SAMPLED)
    for number in range(count):
        part, index = _part(dataset, number * len(dataset) // count)
        info = part.get_data_info(index) if hasattr(part, 'get_data_info') else {}
        file = info.get('file', info.get('path', ''))
        if is_video(file) and os.path.isfile(file):
            try:
                check_readable(file)
                fps = read_header(file).fps
            except ClipError:
                continue
            if fps > 0:
                rates[file] = fps / getattr(part, 'frame_interval', 1)
    return rates


def rates_within(rates: Mapping[str, float]) -> str | None:
    """Describe the slowest and the fastest video if their rates differ; otherwise return None."""
    if not rates or max(rates.values()) <= MAX_RATIO * min(rates.values()):
        return None
    slow, fast = min(rates, key=rates.__getitem__), max(rates, key=rates.__getitem__)
    return (
        f'frames per second range from {rates[slow]:.4g} (e.g. {slow}) to {rates[fast]:.4g} (e.g. {fast}) in '
        f'{len(rates)} videos, so the same motion is up to {rates[fast] / rates[slow]:.1f} times as large between two '
        f'frames; convert the videos to one rate, e.g. ffmpeg -i IN -vf fps={rates[slow]:.4g} OUT.mp4, or give each '
        'rate a dataset with its own frame_interval'
    )


def rates_differ(first: Mapping[str, float], second: Mapping[str, float], name: str, other: str) -> str | None:
    """Describe the median rates of two sets of clips if they differ; otherwise return None."""
    if not first or not second:
        return None
    rates = median(first.values()), median(second.values())
    if max(rates) <= MAX_RATIO * min(rates):
        return None
    return (
        f'frames per second of the compared clips differ: {name} {rates[0]:.4g}, {other} {rates[1]:.4g}. The motion '
        'between two frames is part of what is measured: convert one set (ffmpeg -i IN -vf fps=N OUT.mp4) or set '
        'frame_interval. Ignore this if the rate of a file is only nominal, like that of pvvae sample --fps'
    )


def _part(dataset: Dataset, index: int) -> tuple[Dataset, int]:
    """Return the innermost dataset of an index, and the index in it."""
    if hasattr(dataset, 'datasets'):  # ConcatDataset
        for part in dataset.datasets:
            if index < len(part):
                return _part(part, index)
            index -= len(part)
    inner = getattr(dataset, 'dataset', None)
    return (dataset, index) if inner is None else _part(inner, index % len(inner))
