"""Optical flow as colors: hue encodes the direction, brightness the length."""

from __future__ import annotations

import numpy as np

from .strips import BACKGROUND

# Color wheel of Baker et al., "A Database and Evaluation Methodology for Optical Flow" (the Middlebury benchmark).
# STEPS counts the hues from each corner to the next, and is larger between colors that the eye separates well. The
# wheel starts at the right and turns clockwise.
CORNERS = ((255, 0, 0), (255, 255, 0), (0, 255, 0), (0, 255, 255), (0, 0, 255), (255, 0, 255))
STEPS = (15, 6, 4, 11, 13, 6)

SCALE_PERCENTILE = 99  # so that one outlier does not darken the whole clip
MIN_SCALE = 0.5  # pixels; keeps the noise of a still clip dark


def flow_scale(flows: np.ndarray) -> float:
    """Return the flow length (pixels) to show at full brightness: the 99th percentile, and at least half a pixel.

    Args:
        flows: Flow vectors, ``(..., 2)``.
    """
    lengths = np.linalg.norm(flows, axis=-1)
    return max(MIN_SCALE, float(np.percentile(lengths, SCALE_PERCENTILE))) if lengths.size else MIN_SCALE


def flow_colors(flow: np.ndarray, scale: float) -> np.ndarray:
    """Convert optical flow to colors: right is red, down yellow, left cyan, up violet, and zero flow black.

    Args:
        flow: Flow to the right and down in pixels, ``(..., 2)``.
        scale: Length in pixels that has full brightness. Longer vectors are clipped to it.

    Returns:
        uint8 ``(..., 3)``.

    Raises:
        ValueError: If the last dimension of ``flow`` is not 2, or ``scale`` is not positive.
    """
    if flow.shape[-1] != 2 or not scale > 0:
        raise ValueError(f'flow must be (..., 2) and scale positive, got {flow.shape} and {scale}')
    turn = np.arctan2(flow[..., 1], flow[..., 0]) / (2 * np.pi) % 1 * sum(STEPS)
    starts = np.cumsum((0, *STEPS))
    hue = np.stack([np.interp(turn, starts, [*channel, channel[0]]) for channel in zip(*CORNERS, strict=True)], axis=-1)
    brightness = np.minimum(np.linalg.norm(flow, axis=-1) / scale, 1)
    return np.rint(hue * brightness[..., None]).astype(np.uint8)


def flow_wheel(size: int) -> np.ndarray:
    """Draw the legend of the flow colors: each pixel of a disc shows the flow from the center to that pixel.

    Args:
        size: Diameter in pixels.

    Returns:
        uint8 ``(size, size, 3)``.
    """
    axis = (np.arange(size) + 0.5) * 2 / size - 1
    flow = np.stack(np.meshgrid(axis, axis), axis=-1)
    inside = np.linalg.norm(flow, axis=-1, keepdims=True) <= 1
    return np.where(inside, flow_colors(flow, 1.0), np.array(BACKGROUND, np.uint8))
