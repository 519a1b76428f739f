"""Conversions: decoded frames to the tensors that a VAE takes, and tensors to at least float32."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor


def as_video(frames: np.ndarray) -> Tensor:
    """Frames, uint8 ``(T, H, W, 3)``, as a video ``(1, 3, T, H, W)`` in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(frames.transpose(3, 0, 1, 2)))[None].float() / 127.5 - 1


def cover(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Frames ``(T, H, W, 3)`` resized to cover ``size`` (height, width), the middle of them."""
    height, width = frames.shape[1:3]
    scale = max(size[0] / height, size[1] / width)
    # What will be seen is cut out first: a long thin picture would become enormous before it is cut.
    rows, columns = (min(have, max(1, round(want / scale))) for have, want in zip((height, width), size, strict=True))
    top, left = (height - rows) // 2, (width - columns) // 2
    frames = frames[:, top : top + rows, left : left + columns]
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.stack([cv2.resize(frame, (size[1], size[0]), interpolation=method) for frame in frames])


def at_least_float32(tensor: Tensor) -> Tensor:
    """Convert a half-precision tensor to float32. Losses need it under autocast."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
