"""Sequential video reader based on PyAV, which is optional."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from types import ModuleType
from typing import Any

import numpy as np

from ..errors import ClipError, first_line
from .base import VideoReader, seconds_from_first
from .packet_index import check_frame_size, once_for_each_file, read_header


class PyAVReader(VideoReader):
    """Video reader based on PyAV that always decodes from the first frame, for codecs that other decoders lack.

    Args:
        path: Video file.

    Attributes:
        fps (float): Average frames per second, 0 if unknown.
        times (np.ndarray): Presentation times in seconds from the first frame, increasing.

    Raises:
        ClipError: If PyAV is not installed, or the file cannot be opened or has no frames.

    Example:
        >>> from pvvae_plugin.datasets.readers import PyAVReader
        >>> from pvvae_plugin.visualization import write_video
        >>> write_video('clip.webm', np.zeros((20, 48, 64, 3), np.uint8), fps=8)
        >>> len(PyAVReader('clip.webm')), PyAVReader('clip.webm').fps  # counted by decoding
        (20, 8.0)
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._times, self.fps = _scan(path)
        if not len(self._times):
            raise ClipError(path, 'PyAV: no frame can be decoded')

    def __len__(self) -> int:
        return len(self._times)

    @property
    def times(self) -> np.ndarray:
        return seconds_from_first(self.path, self._times)

    def read_times(self) -> np.ndarray:
        """Return the frame times stored in the file, in seconds."""
        return self._times

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """Return the frames at ``indices``: uint8 RGB ``(T, H, W, 3)``.

        Raises:
            ClipError: If an index is past the end, a frame cannot be decoded, or the frames differ in size.
        """
        wanted, frames = set(indices), {}
        with closing(_decode(self.path)) as decoded:
            for position, frame in zip(range(max(wanted) + 1), decoded, strict=False):
                if position in wanted:
                    frames[position] = frame.to_ndarray(format='rgb24')
        if max(wanted) not in frames:
            raise ClipError(self.path, f'PyAV: no frame {max(wanted)}')
        if len({frame.shape for frame in frames.values()}) > 1:
            raise ClipError(self.path, 'PyAV: the frame size changes within the clip')
        return np.stack([frames[index] for index in indices])

    def __iter__(self) -> Iterator[np.ndarray]:
        return (frame.to_ndarray(format='rgb24') for frame in _decode(self.path))


def _decode(path: str) -> Iterator:
    """Yield the frames of the first video stream, the one that OpenCV reads."""
    av = _import(path)
    with _open(path) as container:
        try:
            yield from container.decode(container.streams.video[0])
        except av.FFmpegError as error:
            raise ClipError(path, f'PyAV: {first_line(error)}') from error


def _open(path: str) -> Any:
    av = _import(path)
    try:
        # The absolute path keeps names like "a:b.mp4" from being parsed as a protocol.
        container = av.open(os.path.abspath(path), metadata_errors='ignore')
    except av.FFmpegError as error:
        raise ClipError(path, f'PyAV: {first_line(error)}') from error
    if not container.streams.video:
        raise ClipError(path, 'PyAV: no video stream')
    stream = container.streams.video[0]
    stream.thread_count = 1  # data workers already run in parallel
    check_frame_size(path, stream.width, stream.height)
    return container


def _import(path: str) -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise ClipError(
            path,
            f'codec {read_header(path).codec} needs PyAV: pip install av, or convert the file, e.g. '
            f'ffmpeg -i {os.path.basename(path)} -c:v libx264 -crf 18 converted.mp4',
        ) from error
    return av


@once_for_each_file
def _scan(path: str) -> tuple[np.ndarray, float]:
    """Decode a file and return the times of its frames in seconds, and frames per second."""
    with _open(path) as container:
        fps = float(container.streams.video[0].average_rate or 0)
    return np.array([float(frame.time or 0) for frame in _decode(path)]), fps
