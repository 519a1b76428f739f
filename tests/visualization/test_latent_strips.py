"""Whether frames, components and flow stand where they belong."""

from __future__ import annotations

import numpy as np
import pytest

from pvvae_plugin.visualization.flow_colors import flow_wheel
from pvvae_plugin.visualization.latent_strips import WHEEL, draw_latents
from pvvae_plugin.visualization.strips import BORDER, GAP, MAX_WIDTH, draw_strip


def parts(t=3, height=32, width=32, cell=8):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 200, (t, height, width, 3), dtype=np.uint8)
    components = rng.random((t, -(-height // cell), -(-width // cell), 3))
    flows = np.zeros((t - 1, height, width, 2), np.float32)
    flows[..., 0] = 2  # to the right
    return frames, components, flows, cell, [0.5, 0.3, 0.1]


def test_columns_are_latent_frames_and_the_first_has_no_flow():
    frames, components, *rest = parts()
    strip = draw_latents(frames, components, *rest)
    side, step = 96, 96 + 2 * BORDER + GAP
    plain = draw_strip([frames] * 3, None)
    header, margin = plain.shape[0] - 3 * step, strip.shape[1] - plain.shape[1]

    def cell(row, column):
        top, left = header + row * step + BORDER, margin + column * step + BORDER
        return strip[top : top + side, left : left + side]

    for t in range(3):
        assert (cell(0, t) == frames[t].repeat(3, 0).repeat(3, 1)).all()
        shown = np.rint(components[t] * 255).astype(np.uint8)
        assert (cell(1, t) == shown.repeat(24, 0).repeat(24, 1)).all()
    assert (cell(2, 0) == 255).all()
    assert (cell(2, 1) == (255, 0, 0)).all() and (cell(2, 2) == (255, 0, 0)).all()
    legend = strip[plain.shape[0] :]
    wheel = flow_wheel(WHEEL)
    top = (legend[:, 2 * BORDER : 2 * BORDER + WHEEL] != 255).any(axis=(1, 2)).argmax()
    assert (legend[top : top + WHEEL, 2 * BORDER : 2 * BORDER + WHEEL] == wheel).all()
    assert (legend[:, 2 * BORDER + WHEEL :] < 128).any()  # text


@pytest.mark.parametrize(
    ('t', 'height', 'width', 'cell'), [(2, 30, 45, 8), (5, 256, 256, 8), (7, 480, 854, 16), (2, 9, 9, 4)]
)
def test_any_size_is_drawn_within_the_width(t, height, width, cell):
    strip = draw_latents(*parts(t, height, width, cell))
    assert strip.dtype == np.uint8 and strip.shape[1] <= MAX_WIDTH
