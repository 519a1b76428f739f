"""Colors of known flows and of textures that move by known steps."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np
import pytest

from pvvae_plugin.functional.optical_flow import optical_flow
from pvvae_plugin.visualization.flow_colors import MIN_SCALE, flow_colors, flow_scale, flow_wheel

# Hues in degrees by hand: a quarter turn is 13.75 of the wheel's 55 steps. Down: 13.75 of the 15 from red (0) to yellow
# (60). Left: 2.5 of the 11 from cyan (180) to blue (240). Up: 5.25 of the 13 from blue to magenta (300).
DIRECTIONS = {(1, 0): 0, (0, 1): 55, (-1, 0): 193.6, (0, -1): 264.2}


def hue(color):
    return 360 * colorsys.rgb_to_hsv(*(color / 255))[0]


@pytest.mark.parametrize('step', list(DIRECTIONS))
def test_a_texture_that_moves_has_the_color_of_its_direction(step):
    texture = np.random.default_rng(0).normal(size=(128, 128, 3))
    texture = cv2.normalize(cv2.GaussianBlur(texture, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    colors = flow_colors(
        optical_flow(np.stack([np.roll(texture, np.multiply(step, 2)[::-1], (0, 1)), texture])[::-1]), 2
    )
    middle = np.median(colors[32:-32, 32:-32].reshape(-1, 3), axis=0)
    away = (hue(middle) - DIRECTIONS[step] + 180) % 360 - 180
    assert abs(away) < 10 and middle.max() > 240


def test_brightness_is_the_length_and_ends_at_the_scale():
    flow = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [4.0, 0.0], [9.0, 0.0]])
    assert flow_colors(flow, 4.0).tolist() == [[0, 0, 0], [64, 0, 0], [128, 0, 0], [255, 0, 0], [255, 0, 0]]


def test_every_direction_is_fully_colored_and_neighbors_are_alike():
    angles = np.linspace(0, 2 * np.pi, 720)
    colors = flow_colors(np.stack([np.cos(angles), np.sin(angles)], axis=-1), 1.0).astype(int)
    assert (colors.max(axis=1) >= 254).all() and (colors.min(axis=1) <= 1).all()
    assert np.abs(np.diff(colors, axis=0)).max() < 40 and np.abs(colors[0] - colors[-1]).max() <= 1


def test_the_scale_passes_over_strays_and_noise():
    flow = np.zeros((100, 100, 2))
    flow[..., 0] = 3
    flow[0, :50] = 1000
    assert flow_scale(flow) == pytest.approx(3)
    assert flow_scale(flow * 0.001) == MIN_SCALE


def test_the_wheel_shows_where_to():
    wheel = flow_wheel(41)
    assert (wheel[0, 0] == 255).all() and (wheel[20, 20] == 0).all()
    for (right, down), degrees in DIRECTIONS.items():
        assert abs((hue(wheel[20 + 18 * down, 20 + 18 * right]) - degrees + 180) % 360 - 180) < 2


def test_errors_name_the_value():
    with pytest.raises(ValueError, match=r'\(4, 3\)'):
        flow_colors(np.zeros((4, 3)), 1.0)
    with pytest.raises(ValueError, match='scale positive'):
        flow_colors(np.zeros((4, 2)), 0.0)
