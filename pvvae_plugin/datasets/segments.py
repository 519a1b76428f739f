"""Which frames of a video a segment, given in seconds, holds."""

from __future__ import annotations

import numpy as np

from .errors import ClipError

# Containers round the time of a frame (WebM to whole milliseconds), and lists keep what they were given.
SLACK = 1e-3  # seconds


def seconds_from_first(path: str, times: np.ndarray) -> np.ndarray:
    """Times of a video's frames, counted from the first one's.

    Args:
        path: The video, for the error.
        times: Seconds ``(T,)``, as the decoder gives them.

    Returns:
        float64 ``(T,)``, increasing.

    Raises:
        ClipError: If they do not increase, as in streams without times.
    """
    times = times.astype(np.float64) - times[0]
    if not (np.diff(times) > 0).all():
        raise ClipError(path, 'its frames carry no increasing times, so that no segment can be found; convert the file')
    return times


def find_segment(path: str, times: np.ndarray, start: float, end: float) -> tuple[int, int]:
    """The frames shown from ``start`` to ``end``, both included.

    Args:
        path: The video, for the error.
        times: Increasing seconds ``(T,)``, one a frame.
        start: In seconds, as ``end``, which may lie past the video's end.
        end: See ``start``.

    Returns:
        The first frame, and how many there are.

    Raises:
        ClipError: If there is none.
    """
    first = int(np.searchsorted(times, start - SLACK, side='left'))
    stop = int(np.searchsorted(times, end + SLACK, side='right'))
    if first == stop:
        raise ClipError(path, f'no frame from {start} to {end} s; the last of the video is at {times[-1]:.3f} s')
    return first, stop - first
