"""What a video's container says of its frames, read without decoding: whether seeking can be trusted, and the size.

decord counts packets in the order in which they are stored and takes that for the order in which frames are shown. It
also believes that a seek lands on the key frame asked for. Both hold for most files; for the others it returns other
frames than those asked for, without an error.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

from .errors import ClipError

# 8192 x 8192. A header may promise thousands of megapixels, and decoders ask for the memory before they see a picture.
MAX_FRAME_PIXELS = 1 << 26
MAX_REMEMBERED = 1 << 14  # files, a few hundred bytes each
# Only these have an index by which FFmpeg 4, inside decord, finds key frames; name, and where the mark stands.
_SEEKABLE = {'mp4': (4, b'ftyp'), 'mov': (4, b'moov'), 'matroska': (0, b'\x1aE\xdf\xa3'), 'avi': (8, b'AVI ')}


class VideoIndex(NamedTuple):
    """What is known of a video without decoding it.

    Attributes:
        num_packets: Frames that its container holds.
        width: Pixels, as ``height``.
        height: See ``width``.
        problem: Why seeking by decord would return other frames; None if it can be trusted.
    """

    num_packets: int
    width: int
    height: int
    problem: str | None


def read_index(path: str) -> VideoIndex:
    """The index of a video; once a process for each file as long as it does not change.

    Raises:
        ClipError: If FFmpeg inside OpenCV cannot open it, or its frames would be larger than ``MAX_FRAME_PIXELS``.
    """
    stat = os.stat(path)
    return _read_index(os.path.abspath(path), stat.st_size, stat.st_mtime_ns)


def check_frame_size(path: str, width: int, height: int) -> None:
    """Refuse what would fill the memory.

    Raises:
        ClipError: If a frame is larger than ``MAX_FRAME_PIXELS``.
    """
    if width * height > MAX_FRAME_PIXELS:
        raise ClipError(
            path, f'{width} x {height} pixels a frame, more than {MAX_FRAME_PIXELS} (MAX_FRAME_PIXELS): scale it down'
        )


def open_capture(path: str, options: tuple[int, ...] = ()) -> cv2.VideoCapture:
    """Open a video by FFmpeg inside OpenCV, on one thread.

    Raises:
        ClipError: If it cannot be opened, or its frames are too large.
    """
    # Only FFmpeg: for a name like "clip001.mp4" other backends look for a sequence of images. An absolute path is
    # never taken for a protocol ("a:b.mp4"). Workers are the parallelism: one thread each.
    try:
        capture = cv2.VideoCapture(os.path.abspath(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1, *options])
    except cv2.error as error:
        raise ClipError(path, f'OpenCV: {str(error).splitlines()[0][:200]}') from error
    if not capture.isOpened():
        raise ClipError(path, 'OpenCV: not a video that FFmpeg can open')
    check_frame_size(path, int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)))
    return capture


@lru_cache(MAX_REMEMBERED)
def _read_index(path: str, size: int, changed: int) -> VideoIndex:
    capture = open_capture(path, (cv2.CAP_PROP_FORMAT, -1))  # -1: packets as they are stored
    width, height = (int(capture.get(name)) for name in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    if not hasattr(cv2, 'CAP_PROP_PTS'):
        return VideoIndex(0, width, height, 'OpenCV before 4.11 does not tell whether seeking can be trusted')
    packets = []
    while capture.grab():
        packets.append((capture.get(cv2.CAP_PROP_PTS), capture.get(cv2.CAP_PROP_LRF_HAS_KEY_FRAME)))
    capture.release()
    times, is_key = np.array(packets).reshape(-1, 2).T
    return VideoIndex(len(packets), width, height, _problem(path, times, is_key > 0))


def _problem(path: str, times: np.ndarray, is_key: np.ndarray) -> str | None:
    """Why decord's counting would not find frames: ``times`` (N,) in the order of storage, in the stream's units."""
    with open(path, 'rb') as file:
        head = file.read(12)
    container = next((name for name, (at, mark) in _SEEKABLE.items() if head[at:].startswith(mark)), None)
    if container is None:
        return 'its container has no index'
    if not len(times) or not is_key[0]:
        return 'it does not start with a key frame'
    if len(np.unique(times)) < len(times):
        return 'frames carry the same time'
    if container in ('mp4', 'mov') and times[0] != 0:
        return 'it is fragmented or starts late'
    keys = np.flatnonzero(is_key)
    # At a key frame all that was stored before must be shown before, and all behind it behind.
    if (times[keys[1:]] < np.maximum.accumulate(times)[keys[1:] - 1]).any():
        return 'a key frame is stored behind frames that are shown after it'
    if (np.minimum.accumulate(times[::-1])[::-1][keys] < times[keys]).any():
        return 'frames stored behind a key frame are shown before it (an open group of pictures)'
    return None
