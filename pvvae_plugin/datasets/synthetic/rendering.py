"""Rendering of two-colored shapes with antialiased edges on gradients and waves.

Coordinates are in frame sides, x to the right and y downwards. Colors are floats in [0, 1].
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .motions import Track

OUTLINES = ('ellipse', 'box', 'triangle', 'capsule')


class Sprite(NamedTuple):
    """Shape whose two halves differ in color, which makes rotation visible."""

    outline: str
    colors: np.ndarray  # (2, 3)
    stripes: float  # number of stripes across the shape, 0 for none


class Backdrop(NamedTuple):
    """Background that blends two colors by a gradient and waves."""

    colors: np.ndarray  # (2, 3)
    gradient: np.ndarray  # (2,), change of tone per frame side
    waves: np.ndarray  # (K, 4): x and y frequency in waves per frame side, phase, amplitude


def render(sprites: list[Sprite], tracks: list[Track], backdrop: Backdrop, camera: np.ndarray, size: int) -> np.ndarray:
    """Render a clip.

    Args:
        sprites: Shapes from back to front.
        tracks: One track of ``T`` poses per shape.
        backdrop: The background.
        camera: Position of the camera ``(T, 2)``, ``(0, 0)`` in frame 0.
        size: Side of a frame in pixels.

    Returns:
        uint8 RGB ``(T, size, size, 3)``.
    """
    centers = ((np.arange(size) + 0.5) / size).astype(np.float32)
    camera = camera.astype(np.float32)
    x = centers[None, None, :] + camera[:, 0, None, None]  # (T, 1, W)
    y = centers[None, :, None] + camera[:, 1, None, None]  # (T, H, 1)
    moving = bool(camera.any())
    canvas = _paint_backdrop(backdrop, x, y) if moving else _paint_backdrop(backdrop, x[:1], y[:1])
    for sprite, track in zip(sprites, tracks, strict=True):
        alpha, tone = _cover(sprite, track, x, y, size)  # (T, H, W)
        color = sprite.colors[0] + tone[..., None] * (sprite.colors[1] - sprite.colors[0])
        canvas = canvas + alpha[..., None] * (color - canvas)  # (T, H, W, 3)
    return (canvas * 255 + 0.5).astype(np.uint8)


def _paint_backdrop(backdrop: Backdrop, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    tone = 0.5 + backdrop.gradient[0] * (x - 0.5) + backdrop.gradient[1] * (y - 0.5)  # (T, H, W)
    for frequency_x, frequency_y, phase, amplitude in backdrop.waves:
        tone = tone + amplitude * np.sin(2 * np.pi * (frequency_x * x + frequency_y * y) + phase)
    tone = np.clip(tone, 0, 1)[..., None]
    return backdrop.colors[0] + tone * (backdrop.colors[1] - backdrop.colors[0])


def _cover(sprite: Sprite, track: Track, x: np.ndarray, y: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return per pixel the coverage and the tone between the two colors, ``(T, H, W)`` each."""
    px, py, angle, radius = (values.astype(np.float32)[:, None, None] for values in track)
    dx, dy = (x - px) / radius, (y - py) / radius
    cos, sin = np.cos(angle), np.sin(angle)
    u, v = dx * cos + dy * sin, dy * cos - dx * sin  # along and across the shape, in radii
    # Distances are in units of `radius * size` pixels, so the edges are one pixel wide.
    pixels = radius * size
    alpha = np.clip(0.5 - _distance(sprite.outline, u, v) * pixels, 0, 1)
    tone = np.clip(0.5 + u * pixels, 0, 1)
    if sprite.stripes:
        tone = 0.7 * tone + 0.3 * (0.5 + 0.5 * np.sin(np.pi * sprite.stripes * v))
    return alpha, tone


def _distance(outline: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return the approximate signed distance to the outline in radii, negative inside."""
    if outline == 'ellipse':
        return (np.hypot(u, v / 0.6) - 1) * 0.6
    if outline == 'box':
        return np.maximum(np.abs(u) - 0.9, np.abs(v) - 0.55)
    if outline == 'triangle':
        # Tip at u = 1, base at u = -0.6: the slanted sides are half-planes with normals (0.447, +-0.894).
        return np.maximum(-0.6 - u, 0.447 * (u - 1) + 0.894 * np.abs(v))
    return np.hypot(u - np.clip(u, -0.55, 0.55), v) - 0.45
