"""Optical flow of textures with known motion; cell means compared with loops."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from pvvae_plugin.functional.optical_flow import cell_means, optical_flow


def moving(step, num_frames, height, width, seed=0):
    """Create a smooth texture that moves by ``step`` (right, down) per frame, uint8 ``(T, H, W, 3)``."""
    texture = np.random.default_rng(seed).normal(size=(400, 400, 3))
    texture = cv2.normalize(cv2.GaussianBlur(texture, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    corners = [(150 - step[1] * t, 150 - step[0] * t) for t in range(num_frames)]
    return np.stack([texture[top : top + height, left : left + width] for top, left in corners])


@pytest.mark.parametrize('size', [(32, 32), (40, 64), (130, 150)])
@pytest.mark.parametrize('step', [(1, 0), (-1, 2), (0, -3), (0, 0)])
def test_known_translations(size, step):
    flow = optical_flow(moving(step, 3, *size))
    assert flow.shape == (*size, 2)
    inner = flow[8:-8, 8:-8].reshape(-1, 2)  # objects that leave the frame cannot be tracked
    np.testing.assert_allclose(np.median(inner, axis=0), 2 * np.array(step), atol=0.1)


def test_small_things_are_followed_over_several_frames():
    """A disc of 8 pixels moves 3 pixels per frame, 12 in total, on a plain background."""
    frames = np.full((5, 32, 32, 3), 30, np.uint8)
    for t, frame in enumerate(frames):
        cv2.circle(frame, (8 + 3 * t, 16), 4, (60, 180, 250), -1)
        cv2.circle(frame, (9 + 3 * t, 15), 1, (250, 40, 90), -1)
    np.testing.assert_allclose(optical_flow(frames)[16, 8], [12, 0], atol=1.5)


@pytest.mark.parametrize(
    'frames', [np.zeros((1, 8, 8, 3), np.uint8), np.zeros((2, 8, 8, 3)), np.zeros((2, 8, 8), np.uint8)]
)
def test_what_has_no_flow(frames):
    with pytest.raises(ValueError, match=r'uint8 frames \(n, H, W, 3\)'):
        optical_flow(frames)


def test_means_over_cells_count_pixels_of_the_picture_only():
    values = torch.rand(2, 7, 10, generator=torch.Generator().manual_seed(0))
    found = cell_means(values, 4)
    assert found.shape == (2, 2, 3)
    for n, y, x in np.ndindex(2, 2, 3):
        expected = values[n, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4].mean().item()
        assert found[n, y, x].item() == pytest.approx(expected, rel=1e-6)
