"""Frames of a file, as a VAE takes them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import cv2
import numpy as np
import torch
from torch import Tensor

from pvvae_plugin.datasets import ClipError, open_video


def stream_frames(path: str, size: tuple[int, int] | None = None, num_frames: int | None = None) -> Iterator[Tensor]:
    """The frames of a video of any length one after another, few of them in memory at once.

    Args:
        path: Video or image.
        size: Height and width; frames are resized to cover it and the middle is kept. None for the file's own.
        num_frames: Stop after so many; a VAE takes ``1 + k * p_t``. None for all there are.

    Yields:
        ``(1, 3, H, W)`` in [-1, 1] each, for ``encode_stream``.

    Raises:
        ClipError: If the file cannot be opened or has fewer frames, at once; if one cannot be decoded, when it is met.
    """
    reader = open_video(path)
    if num_frames is not None and num_frames > len(reader):
        raise ClipError(path, f'{num_frames} frames are wanted, it has {len(reader)}')
    return (
        as_video(cover(frame[None], size) if size else frame[None])[:, :, 0] for frame in islice(reader, num_frames)
    )


def as_video(frames: np.ndarray) -> Tensor:
    """Frames, uint8 ``(T, H, W, 3)``, as a video ``(1, 3, T, H, W)`` in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(frames.transpose(3, 0, 1, 2)))[None].float() / 127.5 - 1


def cover(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Frames ``(T, H, W, 3)`` resized to cover ``size`` (height, width), the middle of them."""
    height, width = frames.shape[1:3]
    scale = max(size[0] / height, size[1] / width)
    shape = (max(size[1], round(width * scale)), max(size[0], round(height * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    frames = np.stack([cv2.resize(frame, shape, interpolation=method) for frame in frames])
    top, left = (frames.shape[1] - size[0]) // 2, (frames.shape[2] - size[1]) // 2
    return frames[:, top : top + size[0], left : left + size[1]]
