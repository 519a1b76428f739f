"""Opening and reading files with the first decoder that succeeds."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import cv2
import numpy as np

from ..errors import ClipError, first_line
from .base import VideoReader, find_segment, is_image
from .decord_reader import DecordReader
from .image_reader import ImageReader
from .opencv_reader import OpenCVReader
from .packet_index import read_header
from .pyav_reader import PyAVReader

# Readers per backend, in the order of trial.
READERS: dict[str, tuple[type[VideoReader], ...]] = {
    'auto': (DecordReader, OpenCVReader),
    'decord': (DecordReader,),
    'opencv': (OpenCVReader,),
}
# Codecs (four-character codes) that common builds of decord and OpenCV cannot decode. Others are not tried with PyAV:
# it would only read more of damaged files.
CODECS_OF_PYAV = ('AV01',)
# Errors of a decoder after which the next decoder is tried.
DECODER_ERRORS = (ClipError, cv2.error, MemoryError, OSError, ImportError)


def open_video(path: str, backend: str = 'auto') -> VideoReader:
    """Open a video or an image.

    Args:
        path: The file.
        backend: ``'decord'``, ``'opencv'``, or ``'auto'``: decord, then OpenCV if decord is not installed or fails,
            then PyAV for AV1.

    Returns:
        A reader. A decord reader may still fail when it reads frames.

    Raises:
        ClipError: If the file cannot be opened.
        ValueError: If ``backend`` is unknown.

    Example:
        >>> from pvvae_plugin.datasets import open_video
        >>> from pvvae_plugin.visualization import write_video
        >>> write_video('clip.webm', np.zeros((20, 48, 64, 3), np.uint8), fps=8)
        >>> type(open_video('clip.webm', backend='opencv')).__name__
        'OpenCVReader'
    """
    reasons = []
    for reader_type in reader_types(path, backend):
        try:
            return reader_type(path)
        except DECODER_ERRORS as error:
            reasons.append(_reason(error, backend))
    raise _unreadable(path, reasons)


def read_clip(
    path: str,
    choose_frames: Callable[[int], Sequence[int]],
    backend: str = 'auto',
    segment: tuple[float, float] | None = None,
) -> tuple[np.ndarray, float]:
    """Open a file and read some of its frames, falling back to the next decoder if one fails.

    The fallback also handles files with fewer decodable frames than their header claims.

    Args:
        path: Video or image.
        choose_frames: Maps the number of frames to the indices to read. Called once per decoder, because their counts
            may differ. It may raise ClipError.
        backend: See :func:`open_video`.
        segment: Start and end in seconds from the first frame. Only frames in the segment are counted, from 0.

    Returns:
        Frames, uint8 RGB ``(T, H, W, 3)``, and frames per second of the source (0 if unknown).

    Raises:
        ClipError: If no decoder can read the frames.
        ValueError: If ``backend`` is unknown.

    Example:
        >>> from pvvae_plugin.datasets import read_clip
        >>> from pvvae_plugin.visualization import write_video
        >>> write_video('clip.webm', np.zeros((20, 48, 64, 3), np.uint8), fps=8)
        >>> frames, fps = read_clip('clip.webm', lambda num_frames: range(0, num_frames, 4))  # every fourth frame
        >>> frames.shape, fps
        ((5, 48, 64, 3), 8.0)
    """
    reasons = []
    for reader_type in reader_types(path, backend):
        try:
            reader = reader_type(path)
            first, num_frames = (0, len(reader)) if segment is None else find_segment(path, reader.times, *segment)
            return reader.read([first + index for index in choose_frames(num_frames)]), reader.fps
        except DECODER_ERRORS as error:
            reasons.append(_reason(error, backend))
    raise _unreadable(path, reasons)


def iterate_frames(path: str, num_frames: int | None = None, backend: str = 'auto') -> Iterator[np.ndarray]:
    """Yield the first frames of a file. If a decoder fails, the next one continues from that frame.

    Args:
        path: Video or image.
        num_frames: Number of frames. None for all.
        backend: See :func:`open_video`.

    Yields:
        Frames, uint8 RGB ``(H, W, 3)``. Only a few are in memory at once.

    Raises:
        ClipError: If no decoder can read a frame.

    Example:
        >>> from pvvae_plugin.datasets import iterate_frames
        >>> from pvvae_plugin.visualization import write_video
        >>> write_video('clip.webm', np.zeros((20, 48, 64, 3), np.uint8), fps=8)
        >>> [frame.shape for frame in iterate_frames('clip.webm', num_frames=2)]
        [(48, 64, 3), (48, 64, 3)]
    """
    done, reasons = 0, []
    for reader_type in reader_types(path, backend):
        try:
            reader = reader_type(path)
            count = len(reader) if num_frames is None else num_frames
            for frame in islice(reader, done, count):
                yield frame
                done += 1
            if done >= count:
                return
            reasons.append(f'{reader_type.__name__}: no frame {done}')
        except DECODER_ERRORS as error:
            reasons.append(_reason(error, backend))
    raise _unreadable(path, reasons)


def reader_types(path: str, backend: str) -> Iterator[type[VideoReader]]:
    """Yield the readers to try for a file, best first.

    Raises:
        ClipError: If the file must not be opened, see :func:`check_readable`.
        ValueError: If ``backend`` is unknown.
    """
    if backend not in READERS:
        raise ValueError(f'backend must be one of {", ".join(READERS)}, got {backend!r}')
    check_readable(path)
    yield from (ImageReader,) if is_image(path) else READERS[backend]
    if backend == 'auto' and not is_image(path) and needs_pyav(path):
        yield PyAVReader


def needs_pyav(path: str) -> bool:
    """Return True if a video has a codec that common builds of decord and OpenCV cannot decode."""
    try:
        return read_header(path).codec in CODECS_OF_PYAV
    except ClipError:
        return False


def _reason(error: Exception, backend: str) -> str:
    """Describe why a decoder failed. Re-raises the ImportError if the user chose a decoder that is not installed."""
    if isinstance(error, ClipError):
        return error.reason
    if isinstance(error, ImportError):
        if backend == 'decord':
            raise error
        return str(error)
    return f'{type(error).__name__}: {first_line(error)}'


def _unreadable(path: str, reasons: Sequence[str]) -> ClipError:
    return ClipError(path, '; '.join(dict.fromkeys(reasons)))


def check_readable(path: str) -> None:
    """Check that a file is safe to open with a decoder, without decoding it.

    Raises:
        ClipError: If the path does not exist, is not a regular file (pipe, device or folder), or the file is empty or a
            playlist.
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        # OpenCV's FFmpeg crashes the process on such names.
        raise ClipError(repr(path), 'its name is not valid UTF-8: rename the file') from None
    if os.path.isdir(path):
        raise ClipError(
            path,
            'not a file: a folder, pipe or device; join a folder of frames into a video, e.g. '
            f'ffmpeg -framerate 25 -i {os.path.join(path, "%05d.png")} clip.mp4',
        )
    if not os.path.isfile(path):
        # Opening a pipe would block forever, and a device may be endless.
        raise ClipError(path, 'not a file: a folder, pipe or device' if os.path.exists(path) else 'no such file')
    if os.path.getsize(path) == 0:
        raise ClipError(path, 'the file is empty (0 bytes)')
    if not is_image(path):
        _refuse_playlists(path)


def _refuse_playlists(path: str) -> None:
    """Reject playlists, because the decoders' FFmpeg opens the files and network addresses that they list.

    All playlist formats are text, and all video containers but YUV4MPEG2 start with binary data. Files with an ID3 tag
    are rejected too: FFmpeg skips the tag, so it could hide a playlist, and no video container starts with one.

    Raises:
        ClipError: If the file starts like text or with an ID3 tag.
    """
    try:
        text = starts_like_text(path)
    except OSError as error:
        raise ClipError(path, f'cannot be read: {error.strerror}') from error
    if text:
        raise ClipError(path, 'starts like text: not a video, or a playlist, which could open other files')


def starts_like_text(path: str) -> bool:
    """Return True if a file starts like text or with an ID3 tag. YUV4MPEG2, the video format, is not text.

    Raises:
        OSError: If the file cannot be read.
    """
    with open(path, 'rb') as file:
        head = file.read(64)
    if head.startswith(b'YUV4MPEG2 '):
        return False
    return head.startswith(b'ID3') or not any(byte < 9 or 13 < byte < 32 for byte in head)
