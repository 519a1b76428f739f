"""Resizing of clips to the square input of a pretrained network."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

RESIZE_MODES = ('stretch', 'short-side-crop')


def resize_clip(video: Tensor, size: int, mode: str = 'stretch') -> Tensor:
    """Resize every frame to a square with bilinear interpolation (half-pixel centers, no antialiasing).

    Args:
        video: ``(N, C, T, H, W)``, float.
        size: Side of the square, in pixels.
        mode: ``'stretch'`` resizes height and width to ``size``. ``'short-side-crop'`` resizes the shorter side to
            ``size`` and the longer one in proportion, rounded up, then crops the center square (as VideoGPT; an odd
            pixel is cropped at the bottom or right).

    Returns:
        ``(N, C, T, size, size)``; the input itself if it already has this size.

    Raises:
        ValueError: If the video does not have five dimensions, or the mode is unknown.

    Example:
        >>> from pvvae_plugin.functional.clip_resize import resize_clip
        >>> video = torch.zeros(1, 3, 9, 240, 320)
        >>> resize_clip(video, 224, mode='short-side-crop').shape
        torch.Size([1, 3, 9, 224, 224])
    """
    if video.dim() != 5:
        raise ValueError(f'video must have shape (N, C, T, H, W), got {tuple(video.shape)}')
    if mode not in RESIZE_MODES:
        raise ValueError(f'resize must be one of {RESIZE_MODES}, got {mode!r}')
    height, width = video.shape[-2:]
    if mode == 'stretch':
        return resize_frames(video, size, size)
    # Integer arithmetic: in floating point, 25 * (224 / 25) is slightly above 224 and would round up to 225.
    short = min(height, width)
    tall, wide = -(-height * size // short), -(-width * size // short)
    top, left = (tall - size) // 2, (wide - size) // 2
    return resize_frames(video, tall, wide)[..., top : top + size, left : left + size]


def resize_frames(video: Tensor, height: int, width: int, align_corners: bool = False) -> Tensor:
    """Resize every frame with bilinear interpolation, without antialiasing.

    Args:
        video: ``(N, C, T, H, W)``, float.
        height: Target height in pixels.
        width: Target width in pixels.
        align_corners: Align the centers of the corner pixels instead of the image edges.

    Returns:
        ``(N, C, T, height, width)``; the input itself if it already has this size.

    Example:
        >>> from pvvae_plugin.functional.clip_resize import resize_frames
        >>> video = torch.tensor([0.0, 1.0]).view(1, 1, 1, 1, 2)
        >>> resize_frames(video, height=1, width=3, align_corners=True).flatten()
        tensor([0.0000, 0.5000, 1.0000])
    """
    if tuple(video.shape[-2:]) == (height, width):
        return video
    # Treat the clip as N * C images of T channels, which needs no copy.
    images = video.flatten(0, 1)  # (N * C, T, H, W)
    images = F.interpolate(images, (height, width), mode='bilinear', align_corners=align_corners, antialias=False)
    return images.unflatten(0, video.shape[:2])
