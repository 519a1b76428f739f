"""Optical flow over a few frames, and its mean per latent cell."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

# DIS matches patches of 8 pixels at half the resolution, which are too coarse for smaller images.
MIN_SIDE = 128


def optical_flow(frames: np.ndarray) -> np.ndarray:
    """Compute optical flow from the first to the last frame with OpenCV's DIS, medium preset.

    The flow is accumulated frame by frame, because DIS loses small objects that move by more than their size. Frames
    with a side below 128 pixels are enlarged first.

    Args:
        frames: uint8 RGB ``(n, H, W, 3)`` with ``n`` at least 2.

    Returns:
        float32 ``(H, W, 2)``: displacement (right, down) of every pixel in the first frame, in pixels.

    Raises:
        ValueError: If the dtype or shape is wrong.

    Example:
        >>> from pvvae_plugin.functional.optical_flow import optical_flow
        >>> texture = np.random.default_rng(0).integers(0, 256, (128, 140, 1), np.uint8).repeat(3, axis=2)
        >>> frames = np.stack([texture[:, 4:132], texture[:, :128]])  # moves to the right by 4 pixels
        >>> flow = optical_flow(frames)
        >>> flow.shape, round(float(np.median(flow[..., 0])))
        ((128, 128, 2), 4)
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or len(frames) < 2 or not frames.size:
        raise ValueError(f'flow needs uint8 frames (n, H, W, 3), at least 2, got {frames.dtype} {frames.shape}')
    height, width = frames.shape[1:3]
    factor = -(-MIN_SIDE // min(height, width))
    size = (width * factor, height * factor)
    gray = [cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY) for frame in frames]
    if factor > 1:
        gray = [cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC) for frame in gray]
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    start = np.stack(np.meshgrid(np.arange(size[0]), np.arange(size[1])), axis=-1).astype(np.float32)
    flow = np.zeros_like(start)
    for first, second in zip(gray, gray[1:], strict=False):
        step = dis.calc(first, second, None)
        # sample the step at the current positions of the tracked points
        flow += cv2.remap(step, start + flow, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    if factor > 1:
        flow = cv2.resize(flow, (width, height), interpolation=cv2.INTER_AREA) / np.float32(factor)
    return flow


def cell_means(values: Tensor, spatial_ratio: int) -> Tensor:
    """Average pixel values per latent cell.

    Args:
        values: ``(N, H, W)``. If a side is not divisible by the ratio, the last cells have fewer pixels.
        spatial_ratio: ``p_s``, side of a cell in pixels.

    Returns:
        ``(N, ceil(H / p_s), ceil(W / p_s))``, float64.

    Example:
        >>> from pvvae_plugin.functional.optical_flow import cell_means
        >>> cell_means(torch.tensor([[[1.0, 3.0, 5.0]]]), spatial_ratio=2)  # the last cell has one pixel
        tensor([[[2., 5.]]], dtype=torch.float64)
    """
    down, right = (-side % spatial_ratio for side in values.shape[-2:])
    padded = torch.nn.functional.pad(values.double(), (0, right, 0, down), value=float('nan'))
    n, height, width = padded.shape
    shape = (n, height // spatial_ratio, spatial_ratio, width // spatial_ratio, spatial_ratio)
    return padded.view(shape).nanmean(dim=(2, 4))
