"""Video reader based on decord, with random access."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import numpy as np

from ..errors import ClipError, first_line
from .base import VideoReader, seconds_from_first
from .packet_index import read_header, read_index

LEAST_TOLERANCE = 1e-9  # share of frames that decord may replace by copies; 0 would allow copies everywhere
FRAMES_AT_ONCE, BYTES_AT_ONCE = 16, 1 << 26  # chunk size for reading a whole video


class DecordReader(VideoReader):
    """Video reader based on decord, which seeks. Rejects files in which seeking would return the wrong frames.

    Args:
        path: Video file.

    Attributes:
        fps (float): Average frames per second, 0 if unknown.
        times (np.ndarray): Presentation times in seconds from the first frame, increasing.

    Raises:
        ClipError: If the file cannot be opened, has no frames, or does not support reliable seeking.
        ImportError: If decord is not installed.

    Example:
        >>> from pvvae_plugin.datasets import DecordReader
        >>> from pvvae_plugin.visualization import write_video
        >>> write_video('clip.webm', np.zeros((20, 48, 64, 3), np.uint8), fps=8)
        >>> DecordReader('clip.webm').read([19]).shape
        (1, 48, 64, 3)
    """

    def __init__(self, path: str) -> None:
        import decord

        decord.logging.set_level(decord.logging.QUIET)
        self.path = path
        index = read_index(path)
        if index.problem:
            raise ClipError(path, f'decord would seek to other frames: {index.problem}')
        # decord raises RuntimeError, AssertionError or DECORDError, which derives directly from Exception.
        try:
            # The absolute path keeps names like "a:b.mp4" from being parsed as a protocol. One thread: data workers
            # already run in parallel. decord returns copies for frames that fail to decode, unless the tolerance is
            # minimal; then it raises an error.
            self._reader = decord.VideoReader(os.path.abspath(path), num_threads=1, fault_tol=LEAST_TOLERANCE)
            self.fps = float(self._reader.get_avg_fps())
            times = self._reader.get_frame_timestamp(range(len(self._reader)))[:, 0]
        except Exception as error:
            reason = first_line(error)
            if 'cannot find video stream' in reason:  # FFmpeg has no decoder for it
                reason = f'no decoder for codec {read_header(path).codec}'
            raise ClipError(path, f'decord: {reason}') from error
        if len(times) != index.num_packets or times[0] < 0 or not (np.diff(times) > 0).all():
            raise ClipError(path, 'decord would seek to other frames: the times of its frames do not increase from 0')
        self._times = times

    def __len__(self) -> int:
        return len(self._reader)

    @property
    def times(self) -> np.ndarray:
        return seconds_from_first(self.path, self._times)

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """Return the frames at ``indices``: uint8 RGB ``(T, H, W, 3)``.

        Raises:
            ClipError: If a frame cannot be decoded.
        """
        try:
            return self._reader.get_batch(list(indices)).asnumpy()
        except Exception as error:
            raise ClipError(self.path, f'decord: {first_line(error)}') from error

    def __iter__(self) -> Iterator[np.ndarray]:
        start, at_once = 0, 1
        while start < len(self):
            frames = self.read(range(start, min(start + at_once, len(self))))
            yield from frames
            start += len(frames)
            at_once = max(1, min(FRAMES_AT_ONCE, BYTES_AT_ONCE // frames[0].nbytes))
