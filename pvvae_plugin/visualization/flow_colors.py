"""Optical flow as colours: the hue says where to, the brightness how far."""

from __future__ import annotations

import numpy as np

from .strips import BACKGROUND

# Wheel of Baker et al., "A Database and Evaluation Methodology for Optical Flow" (the Middlebury benchmark): steps from
# each corner to the next, more of them where eyes tell more hues apart. It starts to the right and turns clockwise.
CORNERS = ((255, 0, 0), (255, 255, 0), (0, 255, 0), (0, 255, 255), (0, 0, 255), (255, 0, 255))
STEPS = (15, 6, 4, 11, 13, 6)

SCALE_PERCENTILE = 99  # one stray vector must not darken a whole clip
MIN_SCALE = 0.5  # pixels: the noise of a still clip stays dark


def flow_scale(flows: np.ndarray) -> float:
    """Length, in pixels, that is shown at full brightness: the 99th percentile, and at least half a pixel.

    Args:
        flows: ``(..., 2)``.
    """
    lengths = np.linalg.norm(flows, axis=-1)
    return max(MIN_SCALE, float(np.percentile(lengths, SCALE_PERCENTILE))) if lengths.size else MIN_SCALE


def flow_colors(flow: np.ndarray, scale: float) -> np.ndarray:
    """Colours of a flow: to the right red, down yellow, to the left cyan, up violet; black where nothing moves.

    Args:
        flow: Pixels to the right and down, ``(..., 2)``.
        scale: Length of full brightness, in pixels; longer ones look the same.

    Returns:
        uint8 ``(..., 3)``.

    Raises:
        ValueError: If the shape is another or the scale not positive.
    """
    if flow.shape[-1] != 2 or not scale > 0:
        raise ValueError(f'a flow (..., 2) and a positive scale are needed, got {flow.shape} and {scale}')
    turn = np.arctan2(flow[..., 1], flow[..., 0]) / (2 * np.pi) % 1 * sum(STEPS)
    starts = np.cumsum((0, *STEPS))
    hue = np.stack([np.interp(turn, starts, [*channel, channel[0]]) for channel in zip(*CORNERS, strict=True)], axis=-1)
    brightness = np.minimum(np.linalg.norm(flow, axis=-1) / scale, 1)
    return np.rint(hue * brightness[..., None]).astype(np.uint8)


def flow_wheel(size: int) -> np.ndarray:
    """The legend: a disc with the colour of the flow that leads from its middle to each place.

    Args:
        size: Diameter in pixels.

    Returns:
        uint8 ``(size, size, 3)``.
    """
    axis = (np.arange(size) + 0.5) * 2 / size - 1
    flow = np.stack(np.meshgrid(axis, axis), axis=-1)
    inside = np.linalg.norm(flow, axis=-1, keepdims=True) <= 1
    return np.where(inside, flow_colors(flow, 1.0), np.array(BACKGROUND, np.uint8))
