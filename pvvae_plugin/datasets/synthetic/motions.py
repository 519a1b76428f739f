"""Motions of shapes: functions from a start to one pose per frame.

Lengths are in frame sides, angles in radians, times in frames. Every motion begins at the given start, so frame 0 does
not reveal the motion.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Start(NamedTuple):
    """Position, angle and radius of a shape in frame 0."""

    x: float
    y: float
    angle: float
    radius: float


class Track(NamedTuple):
    """Position, angle and radius of a shape in each frame, ``(T,)`` each."""

    x: np.ndarray
    y: np.ndarray
    angle: np.ndarray
    radius: np.ndarray


def linear(start: Start, times: np.ndarray, rng: np.random.Generator) -> Track:
    """Move at constant velocity, roughly towards the center of the frame."""
    velocity = _speed(start, rng) * _direction(_angle_to_center(start) + rng.uniform(-0.6, 0.6))
    return _moved(start, times * velocity[0], times * velocity[1])


def bounce(start: Start, times: np.ndarray, rng: np.random.Generator) -> Track:
    """Move at constant speed towards the nearest edges and bounce off them."""
    velocity = _speed(start, rng) * _direction(_angle_to_center(start) + np.pi + rng.uniform(-0.6, 0.6))
    low, high = start.radius, 1 - start.radius
    x = _reflected(start.x + times * velocity[0], low, high)
    y = _reflected(start.y + times * velocity[1], low, high)
    return _moved(start, x - start.x, y - start.y)


def rotate(start: Start, times: np.ndarray, rng: np.random.Generator) -> Track:
    """Spin in place, one turn in 8 to 16 frames."""
    return _moved(start, 0 * times, 0 * times)._replace(angle=start.angle + times * _turn(rng))


def zoom(start: Start, times: np.ndarray, rng: np.random.Generator) -> Track:
    """Grow and shrink between 1 / 2.2 and 2.2 times the initial size. Doubling takes 4 to 7 frames."""
    rate = rng.choice([-1, 1]) * np.log(2) / rng.uniform(4, 7)
    log_scale = _reflected(times * rate, -np.log(2.2), np.log(2.2))
    return _moved(start, 0 * times, 0 * times)._replace(radius=start.radius * np.exp(log_scale))


def oscillate(start: Start, times: np.ndarray, rng: np.random.Generator) -> Track:
    """Oscillate on a line with a period of 9 to 15 frames."""
    swing = start.radius * rng.uniform(1.5, 2.2) * np.sin(2 * np.pi * times / rng.uniform(9, 15))
    direction = _direction(rng.uniform(0, 2 * np.pi))
    return _moved(start, swing * direction[0], swing * direction[1])


def orbit(start: Start, times: np.ndarray, rng: np.random.Generator) -> Track:
    """Move on a circle around a point in the direction of the frame's center."""
    distance = start.radius * rng.uniform(1.2, 1.8)
    to_pivot = _angle_to_center(start) + rng.uniform(-0.6, 0.6)
    phase = to_pivot + np.pi + rng.choice([-1, 1]) * times * _speed(start, rng) / distance
    return _moved(
        start,
        distance * (np.cos(to_pivot) + np.cos(phase)),
        distance * (np.sin(to_pivot) + np.sin(phase)),
    )


def roll(start: Start, times: np.ndarray, rng: np.random.Generator) -> Track:
    """Move at constant velocity and spin."""
    return linear(start, times, rng)._replace(angle=start.angle + times * _turn(rng))


Motion = Callable[[Start, np.ndarray, np.random.Generator], Track]
MOTIONS: dict[str, Motion] = {
    motion.__name__: motion for motion in (linear, bounce, rotate, zoom, oscillate, orbit, roll)
}


def _speed(start: Start, rng: np.random.Generator) -> float:
    """Draw a speed of one diameter in 4 to 8 frames, so the last frame is a poor prediction of the next group."""
    return 2 * start.radius / rng.uniform(4, 8)


def _turn(rng: np.random.Generator) -> float:
    return rng.choice([-1, 1]) * 2 * np.pi / rng.uniform(8, 16)


def _direction(angle: float) -> np.ndarray:
    return np.array([np.cos(angle), np.sin(angle)])


def _angle_to_center(start: Start) -> float:
    return np.arctan2(0.5 - start.y, 0.5 - start.x)


def _reflected(value: np.ndarray, low: float, high: float) -> np.ndarray:
    """Reflect values into [low, high]."""
    span = high - low
    phase = np.mod(value - low, 2 * span)
    return low + np.minimum(phase, 2 * span - phase)


def _moved(start: Start, dx: np.ndarray, dy: np.ndarray) -> Track:
    same = np.ones_like(dx)
    return Track(start.x + dx, start.y + dy, start.angle * same, start.radius * same)
