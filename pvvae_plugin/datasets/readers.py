"""Frames of a video file or an image, whatever decodes it, with every decoder's failure turned into one error."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import cv2
import numpy as np

from .errors import ClipError, first_line
from .image_reader import ImageReader
from .opencv_reader import OpenCVReader
from .segments import find_segment, seconds_from_first
from .video_index import read_index

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
BACKENDS = ('auto', 'decord', 'opencv')
LEAST_TOLERANCE = 1e-9  # share of a video's frames that decord may replace by copies; 0 would mean all
FRAMES_AT_ONCE, BYTES_AT_ONCE = 16, 1 << 26  # of a video that is read from end to end


def is_video(path: str) -> bool:
    """Whether the name ends like a video's."""
    return path.lower().endswith(VIDEO_EXTENSIONS)


def is_image(path: str) -> bool:
    """Whether the name ends like an image's."""
    return path.lower().endswith(IMAGE_EXTENSIONS)


class DecordReader:
    """Reads by decord, which seeks; files in which it would land on other frames are refused.

    Args:
        path: Video file.

    Attributes:
        fps (float): Average frames a second, 0 where unknown.
        times (np.ndarray): When each frame is shown, in seconds from the first, increasing.

    Raises:
        ClipError: If the file cannot be opened, holds no frame, or cannot be sought in.
        ImportError: If decord is not installed.
    """

    def __init__(self, path: str) -> None:
        import decord

        decord.logging.set_level(decord.logging.QUIET)
        self.path = path
        index = read_index(path)
        if index.problem:
            raise ClipError(path, f'decord would seek to other frames: {index.problem}')
        # decord raises RuntimeError, AssertionError or DECORDError, and the last derives from Exception itself.
        try:
            # An absolute path is never taken for a protocol ("a:b.mp4"). Workers are the parallelism: one thread each.
            # Frames that do not decode come as copies of others; the least tolerance makes that an error.
            self._reader = decord.VideoReader(os.path.abspath(path), num_threads=1, fault_tol=LEAST_TOLERANCE)
            self.fps = float(self._reader.get_avg_fps())
            times = self._reader.get_frame_timestamp(range(len(self._reader)))[:, 0]
        except Exception as error:
            raise ClipError(path, f'decord: {first_line(error)}') from error
        if len(times) != index.num_packets or times[0] < 0 or not (np.diff(times) > 0).all():
            raise ClipError(path, 'decord would seek to other frames: the times of its frames do not increase from 0')
        self._times = times

    def __len__(self) -> int:
        return len(self._reader)

    @property
    def times(self) -> np.ndarray:
        return seconds_from_first(self.path, self._times)

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """Frames at ``indices``: uint8 RGB ``(T, H, W, 3)``.

        Raises:
            ClipError: If one of them cannot be decoded.
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


def open_video(path: str, backend: str = 'auto') -> DecordReader | OpenCVReader | ImageReader:
    """Open a video or an image.

    Args:
        path: The file.
        backend: ``'decord'``, ``'opencv'``, or ``'auto'``: decord, and OpenCV where decord is not installed or fails.

    Returns:
        A reader: ``len(reader)``, ``reader.fps``, ``reader.times``, ``reader.read(indices)``, and ``iter(reader)``
        over all frames, uint8 RGB ``(H, W, 3)``, few of which are in memory at once. A decord reader may still fail
        to read.

    Raises:
        ClipError: If the file cannot be opened.
        ValueError: If there is no such backend.
    """
    return _by_first_reader(path, backend, lambda reader: reader)


def read_clip(
    path: str,
    choose_frames: Callable[[int], Sequence[int]],
    backend: str = 'auto',
    segment: tuple[float, float] | None = None,
) -> tuple[np.ndarray, float]:
    """Open a file and read some of its frames, by the next decoder where one fails.

    A file whose header promises more frames than decode is read within its real length that way.

    Args:
        path: Video or image.
        choose_frames: Number of frames -> indices to read. Called once for each decoder, whose counts may differ; it
            may raise ClipError.
        backend: As for :func:`open_video`.
        segment: Start and end in seconds from the first frame. Only frames shown from start to end are counted, the
            first of them as 0.

    Returns:
        Frames, uint8 RGB ``(T, H, W, 3)``, and frames a second of the source (0 where unknown).

    Raises:
        ClipError: If no decoder can read them.
        ValueError: If there is no such backend.
    """

    def read(reader: DecordReader | OpenCVReader | ImageReader) -> tuple[np.ndarray, float]:
        first, num_frames = (0, len(reader)) if segment is None else find_segment(path, reader.times, *segment)
        return reader.read([first + index for index in choose_frames(num_frames)]), reader.fps

    return _by_first_reader(path, backend, read)


def iterate_frames(path: str, num_frames: int | None = None, backend: str = 'auto') -> Iterator[np.ndarray]:
    """The first frames of a file one after another, by the next decoder from where one fails.

    Args:
        path: Video or image.
        num_frames: How many; None for all there are.
        backend: As for :func:`open_video`.

    Yields:
        uint8 RGB ``(H, W, 3)``, few of which are in memory at once.

    Raises:
        ClipError: If no decoder can read one of them.
    """
    done, reasons = 0, []
    for reader_type in _reader_types(path, backend):
        try:
            reader = reader_type(path)
            count = len(reader) if num_frames is None else num_frames
            for frame in islice(reader, done, count):
                yield frame
                done += 1
            if done >= count:
                return
            reasons.append(f'{reader_type.__name__}: no frame {done}')
        except ClipError as error:
            reasons.append(error.reason)
        except (cv2.error, MemoryError, OSError) as error:
            reasons.append(f'{type(error).__name__}: {first_line(error)}')
        except ImportError as error:
            if backend == 'decord':
                raise
            reasons.append(str(error))
    raise ClipError(path, '; '.join(dict.fromkeys(reasons)))


def _by_first_reader(path: str, backend: str, use: Callable[[Any], Any]) -> Any:
    """What ``use`` makes of the first reader with which it succeeds."""
    reasons = []
    for reader_type in _reader_types(path, backend):
        try:
            return use(reader_type(path))
        except ClipError as error:
            reasons.append(error.reason)
        except (cv2.error, MemoryError, OSError) as error:
            reasons.append(f'{type(error).__name__}: {first_line(error)}')
        except ImportError as error:
            if backend == 'decord':
                raise
            reasons.append(str(error))
    raise ClipError(path, '; '.join(dict.fromkeys(reasons)))


def check_readable(path: str) -> None:
    """Refuse what decoders must not even open, without decoding anything.

    Raises:
        ClipError: If there is no such file, it is none but a pipe, device or folder, or it is empty or a playlist.
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        # FFmpeg inside OpenCV crashes the whole process on such a name.
        raise ClipError(repr(path), 'its name is not valid UTF-8: rename the file') from None
    if not os.path.isfile(path):
        # Opening a pipe would wait for ever, and a device may never end.
        raise ClipError(path, 'not a file: a folder, pipe or device' if os.path.exists(path) else 'no such file')
    if os.path.getsize(path) == 0:
        raise ClipError(path, 'the file is empty (0 bytes)')
    if not is_image(path):
        _refuse_playlists(path)


def _reader_types(path: str, backend: str) -> list[type]:
    if backend not in BACKENDS:
        raise ValueError(f'backend must be one of {", ".join(BACKENDS)}, got {backend!r}')
    check_readable(path)
    if is_image(path):
        return [ImageReader]
    return {'auto': [DecordReader, OpenCVReader], 'decord': [DecordReader], 'opencv': [OpenCVReader]}[backend]


def _refuse_playlists(path: str) -> None:
    """FFmpeg, inside the decoders, opens what a playlist names: other files, or addresses of the network.

    Every kind of playlist is text; every container starts with binary numbers. An ID3 tag, which FFmpeg skips, could
    stand before a playlist, and stands before no video.

    Raises:
        ClipError: If the file starts like text.
    """
    try:
        with open(path, 'rb') as file:
            head = file.read(64)
    except OSError as error:
        raise ClipError(path, f'cannot be read: {error.strerror}') from error
    if head.startswith(b'ID3') or not any(byte < 9 or 13 < byte < 32 for byte in head):
        raise ClipError(path, 'starts like text: a playlist, which could open other files, or no video at all')
