"""Interface of all readers, supported file extensions, and frame times."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np

from ..errors import ClipError

# Containers that our readers read; each is tested. docs/data.md lists them too.
VIDEO_EXTENSIONS = (
    '.264', '.265', '.3g2', '.3gp', '.apng', '.asf', '.avi', '.divx', '.f4v', '.flv', '.gif', '.gxf', '.h264', '.h265',
    '.hevc', '.ivf', '.m1v', '.m2p', '.m2t', '.m2ts', '.m2v', '.m4v', '.mj2', '.mjpeg', '.mjpg', '.mk3d', '.mkv',
    '.mov', '.mp4', '.mpe', '.mpeg', '.mpg', '.mpv', '.mts', '.mxf', '.nut', '.ogm', '.ogv', '.qt', '.rm', '.rmvb',
    '.ts', '.vob', '.webm', '.wmv', '.wtv', '.y4m',
)  # fmt: skip
IMAGE_EXTENSIONS = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')
# Tolerance for segment times: containers round frame times (WebM to whole milliseconds), lists do not.
SLACK = 1e-3  # seconds


class VideoReader(ABC):
    """Interface for reading the frames of a file.

    Args:
        path: The file.

    Attributes:
        fps (float): Frames per second, 0 if unknown.

    Raises:
        ClipError: If the file cannot be opened or has no frames.

    Example:
        >>> from pvvae_plugin.datasets import open_video
        >>> from pvvae_plugin.visualization import write_video
        >>> write_video('clip.webm', np.zeros((20, 48, 64, 3), np.uint8), fps=8)
        >>> reader = open_video('clip.webm')
        >>> len(reader), reader.fps, reader.read([0, 10]).shape
        (20, 8.0, (2, 48, 64, 3))
        >>> reader.times[:3].tolist()
        [0.0, 0.125, 0.25]
    """

    path: str
    fps: float

    @property
    @abstractmethod
    def times(self) -> np.ndarray:
        """Presentation times in seconds from the first frame, increasing, float64 ``(T,)``."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of frames."""

    @abstractmethod
    def read(self, indices: Sequence[int]) -> np.ndarray:
        """Return the frames at ``indices``: uint8 RGB ``(T, H, W, 3)``.

        Raises:
            ClipError: If a frame cannot be decoded or does not exist.
        """

    @abstractmethod
    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield all frames in order, uint8 RGB ``(H, W, 3)``, holding only a few in memory."""


def is_video(path: str) -> bool:
    """Return True if the path has a video extension."""
    return path.lower().endswith(VIDEO_EXTENSIONS)


def is_image(path: str) -> bool:
    """Return True if the path has an image extension."""
    return path.lower().endswith(IMAGE_EXTENSIONS)


def seconds_from_first(path: str, times: np.ndarray) -> np.ndarray:
    """Shift frame times to start at 0.

    Args:
        path: The video, for the error message.
        times: Times in seconds ``(T,)`` as returned by the decoder.

    Returns:
        float64 ``(T,)``, increasing.

    Raises:
        ClipError: If the times do not increase, as in streams without timestamps.
    """
    times = times.astype(np.float64) - times[0]
    if not (np.diff(times) > 0).all():
        raise ClipError(path, 'segments need increasing frame times, which this file lacks; convert the file')
    return times


def find_segment(path: str, times: np.ndarray, start: float, end: float) -> tuple[int, int]:
    """Find the frames shown from ``start`` to ``end``, both inclusive.

    Args:
        path: The video, for the error message.
        times: Increasing frame times in seconds, ``(T,)``.
        start: Start in seconds.
        end: End in seconds. It may exceed the length of the video.

    Returns:
        Index of the first frame, and the number of frames.

    Raises:
        ClipError: If the segment contains no frame.
    """
    first = int(np.searchsorted(times, start - SLACK, side='left'))
    stop = int(np.searchsorted(times, end + SLACK, side='right'))
    if first == stop:
        raise ClipError(path, f'no frame from {start} to {end} s; the last frame of the video is at {times[-1]:.3f} s')
    return first, stop - first
