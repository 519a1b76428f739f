"""Conversion of decoded frames to VAE inputs, and of tensors to at least float32."""

from __future__ import annotations

import warnings

import cv2
import numpy as np
import torch
from torch import Tensor


def as_video(frames: np.ndarray) -> Tensor:
    """Convert uint8 frames ``(T, H, W, 3)`` to a video ``(1, 3, T, H, W)`` in [-1, 1].

    Example:
        >>> from pvvae_plugin.functional.conversion import as_video
        >>> video = as_video(np.full((9, 16, 16, 3), 255, np.uint8))
        >>> video.shape, video.max()
        (torch.Size([1, 3, 9, 16, 16]), tensor(1.))
    """
    return torch.from_numpy(np.ascontiguousarray(frames.transpose(3, 0, 1, 2)))[None].float() / 127.5 - 1


def cover(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize frames ``(T, H, W, 3)`` to cover ``size`` (height, width), and crop the center.

    Example:
        >>> from pvvae_plugin.functional.conversion import cover
        >>> cover(np.zeros((9, 240, 320, 3), np.uint8), size=(128, 128)).shape
        (9, 128, 128, 3)
    """
    height, width = frames.shape[1:3]
    scale = max(size[0] / height, size[1] / width)
    # Crop before resizing, because a long, thin image would become huge.
    rows, columns = (min(have, max(1, round(want / scale))) for have, want in zip((height, width), size, strict=True))
    top, left = (height - rows) // 2, (width - columns) // 2
    frames = frames[:, top : top + rows, left : left + columns]
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.stack([cv2.resize(frame, (size[1], size[0]), interpolation=method) for frame in frames])


def at_least_float32(tensor: Tensor) -> Tensor:
    """Convert a half-precision tensor to float32, as losses require under autocast.

    Example:
        >>> from pvvae_plugin.functional.conversion import at_least_float32
        >>> at_least_float32(torch.zeros(2, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def check_value_range(video: Tensor, name: str) -> None:
    """Check that a float video is in [-1, 1], and warn if it seems to be in [0, 1].

    A video without negative values is suspicious, unless its values are those of bytes: then it is bright.

    Args:
        video: The video, of any shape.
        name: Name of the video in messages.

    Raises:
        ValueError: If values are out of range or NaN.

    Example:
        >>> from pvvae_plugin.functional.conversion import check_value_range
        >>> check_value_range(torch.rand(3, 9, 16, 16) * 255, 'video')  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: video must be in [-1, 1], got values from ...
    """
    low, high = video.min().item(), video.max().item()
    if not max(-low, high) <= 1.001:  # also true for NaN
        raise ValueError(
            f'{name} must be in [-1, 1], got values from {low:.3g} to {high:.3g}: divide bytes by 127.5 and subtract 1'
        )
    if low < 0:
        return
    levels = (video.float() + 1) * 127.5
    if (levels - levels.round()).abs().max() > 0.1:  # half precision rounds bytes by less
        warnings.warn(  # Python shows each text once per process
            f'{name} has no negative value: if its values are in [0, 1] instead of [-1, 1], convert it with '
            '2 * video - 1',
            stacklevel=1,
        )


def clamp_colors(video: Tensor) -> Tensor:
    """Clamp to [-1, 1]. Infinite values become NaN: they are errors, not colors.

    Example:
        >>> from pvvae_plugin.functional.conversion import clamp_colors
        >>> clamp_colors(torch.tensor([-3.0, 0.5, torch.inf]))
        tensor([-1.0000,  0.5000,     nan])
    """
    return torch.where(video.isfinite(), video.clamp(-1, 1), torch.nan)
