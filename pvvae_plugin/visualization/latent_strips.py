"""Strips that compare frames, principal components of their latents, and optical flow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .flow_colors import flow_colors, flow_scale, flow_wheel
from .strips import BACKGROUND, BORDER, FONT_SIZE, MAX_WIDTH, MIN_SIDE, TEXT, draw_strip

CAPTIONS = [
    'last frame\nof its group',
    'latents:\ncomponents 1 to 3\nas red, green, blue',
    'optical flow\nfrom the column\nbefore',
]
WHEEL = 72
LINE = FONT_SIZE + 5
MARGIN = 300  # maximum width of the captions


def draw_latents(
    frames: np.ndarray, components: np.ndarray, flows: np.ndarray, spatial_ratio: int, shares: Sequence[float]
) -> np.ndarray:
    """Draw a strip with one numbered column per latent frame and a legend below.

    Args:
        frames: The last frame of each group, uint8 ``(t, H, W, 3)``.
        components: First three principal components of the latents, scaled to [0, 1], ``(t, h, w, 3)``.
        flows: Optical flow between consecutive ``frames`` in pixels, ``(t - 1, H, W, 2)``. The first cell is empty.
        spatial_ratio: Spatial ratio ``p_s`` of the VAE: one latent covers ``p_s x p_s`` pixels.
        shares: Share of the latents' variance that each component explains.

    Returns:
        uint8 ``(H', W', 3)``.
    """
    height, width = frames.shape[1:3]
    cells = np.rint(components * 255).astype(np.uint8).repeat(spatial_ratio, axis=1).repeat(spatial_ratio, axis=2)
    scale = flow_scale(flows)
    empty = np.full((1, height, width, 3), BACKGROUND, np.uint8)
    moved = np.concatenate([empty, flow_colors(flows, scale)])
    room = max(MIN_SIDE, (MAX_WIDTH - MARGIN) // len(frames))
    rows = [
        _shrunk(clip, room, method)
        for clip, method in (
            (frames, Image.Resampling.BOX),
            (cells[:, :height, :width], Image.Resampling.NEAREST),
            (moved, Image.Resampling.BOX),
        )
    ]
    percent = ', '.join(f'{100 * share:.0f}' for share in shares)
    return _with_legend(
        draw_strip(rows, CAPTIONS),
        [
            'Flow: the hue is the direction, black is still,',
            f'full brightness is {scale:.1f} pixels or more.',
            f'Components: {percent} % of the variance,',
            'each stretched over the clip.',
        ],
    )


def _shrunk(clip: np.ndarray, width: int, method: Image.Resampling) -> np.ndarray:
    if clip.shape[2] <= width:
        return clip
    size = (width, max(1, round(clip.shape[1] * width / clip.shape[2])))
    return np.stack([np.asarray(Image.fromarray(frame).resize(size, method)) for frame in clip])


def _with_legend(strip: np.ndarray, lines: Sequence[str]) -> np.ndarray:
    """Append a legend below a strip: the color wheel and lines of text."""
    font = ImageFont.load_default(size=FONT_SIZE)
    left = WHEEL + 6 * BORDER
    text_width = max(int(font.getlength(line)) for line in lines) + 2 * BORDER
    below = max(WHEEL, LINE * len(lines)) + 4 * BORDER
    canvas = Image.new('RGB', (max(strip.shape[1], left + text_width), strip.shape[0] + below), BACKGROUND)
    canvas.paste(Image.fromarray(strip))
    top = strip.shape[0] + 2 * BORDER
    canvas.paste(Image.fromarray(flow_wheel(WHEEL)), (2 * BORDER, top))
    draw = ImageDraw.Draw(canvas)
    for i, line in enumerate(lines):
        draw.text((left, top + (i + 0.5) * LINE), line, TEXT, font, anchor='lm')
    return np.array(canvas)
