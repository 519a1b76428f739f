"""The interface of all readers, the file names that they take, and the times of frames."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np

from ..errors import ClipError

VIDEO_EXTENSIONS = (
    '.3gp',
    '.avi',
    '.flv',
    '.m4v',
    '.mkv',
    '.mov',
    '.mp4',
    '.mpeg',
    '.mpg',
    '.ogv',
    '.ts',
    '.webm',
    '.wmv',
)
IMAGE_EXTENSIONS = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')
# Containers round the time of a frame (WebM to whole milliseconds), and lists keep what they were given.
SLACK = 1e-3  # seconds


class VideoReader(ABC):
    """Reader of the frames of one file.

    Args:
        path: The file.

    Attributes:
        fps (float): Frames per second, 0 if unknown.

    Raises:
        ClipError: If the file cannot be opened or holds no frame.

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
        """When each frame is shown: increasing seconds from the first frame, float64 ``(T,)``."""

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
    """Whether the name ends like a video's."""
    return path.lower().endswith(VIDEO_EXTENSIONS)


def is_image(path: str) -> bool:
    """Whether the name ends like an image's."""
    return path.lower().endswith(IMAGE_EXTENSIONS)


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
