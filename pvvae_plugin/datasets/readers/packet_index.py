"""What a video's container says of its frames, read without decoding: whether seeking can be trusted, and the size.

decord counts packets in the order in which they are stored and takes that for the order in which frames are shown. It
also believes that a seek lands on the key frame asked for. Both hold for most files; for the others it returns other
frames than those asked for, without an error.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import BinaryIO, NamedTuple, TypeVar

import cv2
import numpy as np

from ..errors import ClipError

# 8192 x 8192. A header may promise thousands of megapixels, and decoders ask for the memory before they see a picture.
MAX_FRAME_PIXELS = 1 << 26
MAX_REMEMBERED = 1 << 14  # files, a few hundred bytes each
MAX_BOXES, MAX_INDEX = 10_000, 1 << 26  # parts of a container, and bytes of an index, that are looked at
_MP4_BOXES = (b'ftyp', b'moov', b'mdat', b'free', b'skip', b'wide', b'pnot')  # that a film may start with
_AVI_VIDEO = [int.from_bytes(name, 'little') for name in (b'dc', b'db')]

T = TypeVar('T')

# FFmpeg inside OpenCV writes to stderr about each damaged file, before any exception says which file it was.
os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')


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


def once_for_each_file(function: Callable[[str], T]) -> Callable[[str], T]:
    """Let a function of a file's path work once a process for each file, as long as that does not change."""

    @lru_cache(MAX_REMEMBERED)
    def remembered(path: str, size: int, changed: int) -> T:
        return function(path)

    @wraps(function)
    def call(path: str) -> T:
        stat = os.stat(path)
        return remembered(path, stat.st_size, stat.st_mtime_ns)

    return call


@once_for_each_file
def read_index(path: str) -> VideoIndex:
    """The index of a video; once a process for each file.

    Raises:
        ClipError: If FFmpeg inside OpenCV cannot open it, or its frames would be larger than ``MAX_FRAME_PIXELS``.
    """
    capture = open_capture(path, (cv2.CAP_PROP_FORMAT, -1))  # -1: packets as they are stored
    width, height = (int(capture.get(name)) for name in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    packets = []
    while capture.grab():
        packets.append((capture.get(cv2.CAP_PROP_POS_MSEC), capture.get(cv2.CAP_PROP_LRF_HAS_KEY_FRAME)))
    capture.release()
    times, is_key = np.array(packets).reshape(-1, 2).T
    return VideoIndex(len(packets), width, height, _container_problem(path, len(times)) or _problem(times, is_key > 0))


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


def _problem(times: np.ndarray, is_key: np.ndarray) -> str | None:
    """Why decord's counting would not find frames: ``times`` (N,) in the order of storage."""
    if not len(times) or not is_key[0]:
        return 'it does not start with a key frame'
    keys = np.flatnonzero(is_key)
    # At a key frame all that was stored before must be shown before, and all behind it behind.
    if (times[keys[1:]] < np.maximum.accumulate(times)[keys[1:] - 1]).any():
        return 'a key frame is stored behind frames that are shown after it'
    if (np.minimum.accumulate(times[::-1])[::-1][keys] < times[keys]).any():
        return 'frames stored behind a key frame are shown before it (an open group of pictures)'
    return None


def _container_problem(path: str, num_packets: int) -> str | None:
    with open(path, 'rb') as file:
        head, size = file.read(12), os.fstat(file.fileno()).st_size
        file.seek(0)
        if head.startswith(b'\x1aE\xdf\xa3'):  # Matroska, WebM
            return None
        if head.startswith(b'RIFF') and head.endswith(b'AVI '):
            return _avi_problem(file, size, num_packets)
        if head[4:8] in _MP4_BOXES:
            return _mp4_problem(file, size)
    return 'its container has no index'


def _mp4_problem(file: BinaryIO, end: int) -> str | None:
    """Whether a film is stored in fragments, of which FFmpeg knows only the first before it has read them all."""
    position = 0
    for _ in range(MAX_BOXES):
        if position + 8 > end:
            return None
        file.seek(position)
        head = file.read(16)
        if head[4:8] == b'moof':
            return 'it is stored in fragments'
        size = int.from_bytes(head[:4], 'big')
        size = int.from_bytes(head[8:], 'big') if size == 1 else size
        if size < 8:  # 0: up to the end
            return None
        position += size
    return 'it is cut into too many pieces'


def _avi_problem(file: BinaryIO, end: int, num_packets: int) -> str | None:
    """What is wrong with the index at an AVI's end, by which FFmpeg seeks; ``num_packets`` were found without it."""
    head = file.read(12)
    end = min(end, 8 + int.from_bytes(head[4:8], 'little'))
    for _ in range(MAX_BOXES):
        if file.tell() + 8 > end:
            break
        name, size = file.read(4), int.from_bytes(file.read(4), 'little')
        if name == b'idx1':
            return _check_avi_entries(file.read(min(size, MAX_INDEX)), num_packets)
        file.seek(size + size % 2, os.SEEK_CUR)
    return 'it has no index'


def _check_avi_entries(content: bytes, num_packets: int) -> str | None:
    entries = np.frombuffer(content[: len(content) // 16 * 16], '<u4').reshape(-1, 4)
    is_video = np.isin(entries[:, 0] >> 16, _AVI_VIDEO)  # the name's last two letters
    _, _, offsets, sizes = entries.astype(np.int64).T
    if (offsets[1:] < offsets[:-1] + 8 + sizes[:-1]).any():
        return 'its index is damaged'
    if np.count_nonzero(sizes[is_video]) != num_packets:
        return 'its index does not fit its frames'
    return None
