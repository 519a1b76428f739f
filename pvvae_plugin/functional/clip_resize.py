"""Resizing clips to the square that a pretrained network takes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

RESIZE_MODES = ('stretch', 'short-side-crop')


def resize_clip(video: Tensor, size: int, mode: str = 'stretch') -> Tensor:
    """Every frame resized to a square, bilinearly: half-pixel centres, no antialiasing.

    Args:
        video: ``(N, C, T, H, W)``, float.
        size: Side of the square, in pixels.
        mode: ``'stretch'``: height and width each to ``size``. ``'short-side-crop'``: the shorter to ``size`` and the
            longer in proportion, rounded up, then the square in the middle (VideoGPT's; the odd pixel is cut off at
            the bottom or the right).

    Returns:
        ``(N, C, T, size, size)``; the argument itself where it has that size.

    Raises:
        ValueError: If the video does not have five dimensions, or there is no such mode.
    """
    if video.dim() != 5:
        raise ValueError(f'a clip to resize has the shape (N, C, T, H, W), got {tuple(video.shape)}')
    if mode not in RESIZE_MODES:
        raise ValueError(f'resize must be one of {RESIZE_MODES}, got {mode!r}')
    height, width = video.shape[-2:]
    if mode == 'stretch':
        return resize_frames(video, size, size)
    # In whole numbers: as floats, 25 * (224 / 25) is a little more than 224, and would be rounded up to 225.
    short = min(height, width)
    tall, wide = -(-height * size // short), -(-width * size // short)
    top, left = (tall - size) // 2, (wide - size) // 2
    return resize_frames(video, tall, wide)[..., top : top + size, left : left + size]


def resize_frames(video: Tensor, height: int, width: int, align_corners: bool = False) -> Tensor:
    """Every frame resized bilinearly without antialiasing.

    Args:
        video: ``(N, C, T, H, W)``, float.
        height: In pixels.
        width: In pixels.
        align_corners: Corner pixels stay where they are, instead of the edges of the picture.

    Returns:
        ``(N, C, T, height, width)``; the argument itself where it has that size.
    """
    if tuple(video.shape[-2:]) == (height, width):
        return video
    # Each picture of each channel by itself: as N * C images of T channels no frame has to be moved in memory.
    images = video.flatten(0, 1)  # (N * C, T, H, W)
    images = F.interpolate(images, (height, width), mode='bilinear', align_corners=align_corners, antialias=False)
    return images.unflatten(0, video.shape[:2])
