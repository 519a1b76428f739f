"""Sequential video reader based on OpenCV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from ..errors import ClipError
from .base import VideoReader, seconds_from_first
from .packet_index import once_for_each_file, open_capture, read_header


class OpenCVReader(VideoReader):
    """Video reader based on OpenCV that always decodes from the first frame.

    It does not trust the header and counts frames by decoding them. It never seeks, because seeking in files with
    variable frame rate returns the wrong frames.

    Args:
        path: Video file.

    Attributes:
        fps (float): Frames per second, 0 if unknown.
        times (np.ndarray): Presentation times in seconds from the first frame, increasing.

    Raises:
        ClipError: If the file cannot be opened or has no frames.

    Example:
        >>> from pvvae_plugin.datasets import OpenCVReader
        >>> from pvvae_plugin.visualization import write_video
        >>> write_video('clip.webm', np.zeros((20, 48, 64, 3), np.uint8), fps=8)
        >>> len(OpenCVReader('clip.webm'))  # counted by decoding
        20
    """

    def __init__(self, path: str) -> None:
        self.path = path
        header = read_header(path)
        self.fps = header.fps
        self._num_frames = _count_frames(path)
        if not self._num_frames:
            raise ClipError(path, f'OpenCV: no frame can be decoded (codec {header.codec})')

    def __len__(self) -> int:
        return self._num_frames

    @property
    def times(self) -> np.ndarray:
        return seconds_from_first(self.path, self.read_times())

    def read_times(self) -> np.ndarray:
        """Return the frame times stored in the file, in seconds. They may not increase in old containers."""
        capture, times = open_capture(self.path), []
        while capture.grab():
            times.append(capture.get(cv2.CAP_PROP_POS_MSEC))
        capture.release()
        return np.array(times) / 1000

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """Return the frames at ``indices``: uint8 RGB ``(T, H, W, 3)``.

        Raises:
            ClipError: If an index is past the end, a frame cannot be decoded, or the frames differ in size.
        """
        wanted = set(indices)
        frames: dict[int, np.ndarray] = {}
        capture = open_capture(self.path)
        for position in range(max(wanted) + 1):
            if not capture.grab():
                raise ClipError(self.path, f'OpenCV: no frame {max(wanted)}, the file ends after {position} frames')
            if position in wanted:
                ok, frame = capture.retrieve()
                if not ok:
                    raise ClipError(self.path, f'OpenCV: frame {position} cannot be decoded')
                frames[position] = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        capture.release()
        if len({frame.shape for frame in frames.values()}) > 1:
            raise ClipError(self.path, 'OpenCV: the frame size changes within the clip')
        return np.stack([frames[index] for index in indices])

    def __iter__(self) -> Iterator[np.ndarray]:
        capture = open_capture(self.path)
        for position in range(len(self)):
            ok, frame = capture.read()
            if not ok:
                raise ClipError(self.path, f'OpenCV: frame {position} cannot be decoded')
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        capture.release()


@once_for_each_file
def _count_frames(path: str) -> int:
    capture, count = open_capture(path), 0
    while capture.grab():
        count += 1
    capture.release()
    return count
