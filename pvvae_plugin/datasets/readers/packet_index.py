"""Index of a video's packets, read without decoding: frame size, and whether decord's seeking can be trusted.

decord assumes that packets are stored in the order in which their frames are shown, and that a seek lands on the
requested key frame. Both hold for most files. For other files, decord silently returns the wrong frames.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import BinaryIO, NamedTuple, TypeVar

import cv2
import numpy as np

from ..errors import ClipError

# 8192 x 8192. Decoders allocate frames of the size in the header, which may claim thousands of megapixels.
MAX_FRAME_PIXELS = 1 << 26
MAX_REMEMBERED = 1 << 14  # files, a few hundred bytes each
MAX_BOXES, MAX_INDEX = 10_000, 1 << 26  # limits on the parts of a container and the bytes of an index to read
_MP4_BOXES = (b'ftyp', b'moov', b'mdat', b'free', b'skip', b'wide', b'pnot')  # first boxes of an MP4 or MOV file
_MP4_VIDEO = re.compile(rb'hdlr.{8}vide', re.DOTALL)  # handler of a track
MAX_TRACKS = 1 << 16  # bytes at the start of a Matroska file in which its tracks are looked for
_MATROSKA_VIDEO = b'\x83\x81\x01'  # element TrackType with the value 1
_AVI_VIDEO = [int.from_bytes(name, 'little') for name in (b'dc', b'db')]

T = TypeVar('T')

# OpenCV's FFmpeg prints to stderr for each damaged file, without the file's name. ClipError names the file instead.
os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')


class VideoIndex(NamedTuple):
    """Properties of a video that are known without decoding it.

    Attributes:
        num_packets: Number of frames in the container.
        width: Width in pixels.
        height: Height in pixels.
        problem: Reason why decord's seeking would return the wrong frames, or None if it can be trusted.
    """

    num_packets: int
    width: int
    height: int
    problem: str | None


def once_for_each_file(function: Callable[[str], T]) -> Callable[[str], T]:
    """Cache a function of a file's path per process, until the file changes."""

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
    """Read the index of a video, cached per process and file.

    Raises:
        ClipError: If OpenCV's FFmpeg cannot open it, or its frames are larger than ``MAX_FRAME_PIXELS``.
    """
    capture = open_capture(path, (cv2.CAP_PROP_FORMAT, -1))  # -1: packets as they are stored
    width, height = (int(capture.get(name)) for name in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    packets = []
    while capture.grab():
        packets.append((capture.get(cv2.CAP_PROP_POS_MSEC), capture.get(cv2.CAP_PROP_LRF_HAS_KEY_FRAME)))
    capture.release()
    times, is_key = np.array(packets).reshape(-1, 2).T
    return VideoIndex(len(packets), width, height, _container_problem(path, len(times)) or _problem(times, is_key > 0))


class Header(NamedTuple):
    """Claims of a video's header.

    Attributes:
        codec: Four-character code, such as ``AV01``.
        fps: Frames per second, 0 if unknown.
    """

    codec: str
    fps: float


@once_for_each_file
def read_header(path: str) -> Header:
    """Read the header of a video, cached per process and file.

    Raises:
        ClipError: If OpenCV's FFmpeg cannot open it.
    """
    capture = open_capture(path)
    code, fps = int(capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF, capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    return Header(code.to_bytes(4, 'little').decode('ascii', 'replace').strip('\0 '), max(0.0, float(fps)))


def check_frame_size(path: str, width: int, height: int) -> None:
    """Check that frames are small enough to fit into memory.

    Raises:
        ClipError: If a frame is larger than ``MAX_FRAME_PIXELS``.
    """
    if width * height > MAX_FRAME_PIXELS:
        raise ClipError(
            path, f'{width} x {height} pixels per frame, more than MAX_FRAME_PIXELS={MAX_FRAME_PIXELS}: scale it down'
        )


def open_capture(path: str, options: tuple[int, ...] = ()) -> cv2.VideoCapture:
    """Open a video with OpenCV's FFmpeg backend on one thread.

    Raises:
        ClipError: If the video cannot be opened, or its frames are too large.
    """
    # Only FFmpeg: other backends look for an image sequence if the name is like "clip001.mp4". The absolute path keeps
    # names like "a:b.mp4" from being parsed as a protocol. One thread: data workers already run in parallel.
    try:
        capture = cv2.VideoCapture(os.path.abspath(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1, *options])
    except cv2.error as error:
        raise ClipError(path, f'OpenCV: {str(error).splitlines()[0][:200]}') from error
    if not capture.isOpened():
        raise ClipError(path, 'OpenCV: not a video that FFmpeg can open')
    check_frame_size(path, int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)))
    return capture


def _problem(times: np.ndarray, is_key: np.ndarray) -> str | None:
    """Return why decord's frame count would be wrong, or None. ``times`` ``(N,)`` are in the order of storage."""
    if not len(times) or not is_key[0]:
        return 'it does not start with a key frame'
    keys = np.flatnonzero(is_key)
    # All frames stored before a key frame must be shown before it, and all frames stored after it, after it.
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
            return _several_streams(_matroska_tracks(file.read(MAX_TRACKS)).count(_MATROSKA_VIDEO))
        if head.startswith(b'RIFF') and head.endswith(b'AVI '):
            return _avi_problem(file, size, num_packets)
        if head[4:8] in _MP4_BOXES:
            return _mp4_problem(file, size)
    return 'its container has no index'


def _several_streams(count: int) -> str | None:
    """OpenCV reads the first video stream. decord chooses one, e.g. by bit rate, and cannot be told which."""
    return f'it has {count} video streams, of which the first is read' if count > 1 else None


def _matroska_tracks(head: bytes) -> bytes:
    """Return the Tracks element at the start of a Matroska file."""
    start = head.find(b'\x16\x54\xae\x6b') + 4
    if start < 4 or start == len(head):
        return b''
    length = 9 - head[start].bit_length()  # bytes of the size: the first has as many leading zeros, less one
    size = int.from_bytes(head[start : start + length], 'big') & ((1 << 7 * length) - 1)
    return head[start + length : start + length + size]


def _mp4_problem(file: BinaryIO, end: int) -> str | None:
    """Reject fragmented files: FFmpeg knows only the first fragment until it has read the whole file.

    Files with several video streams are rejected too.
    """
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
        if head[4:8] == b'moov':
            file.seek(position)
            if problem := _several_streams(len(_MP4_VIDEO.findall(file.read(min(size or MAX_INDEX, MAX_INDEX))))):
                return problem
        if size < 8:  # 0: up to the end
            return None
        position += size
    return 'it is cut into too many pieces'


def _avi_problem(file: BinaryIO, end: int, num_packets: int) -> str | None:
    """Check the index at the end of an AVI, which FFmpeg seeks by. ``num_packets`` were counted without the index."""
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
    is_video = np.isin(entries[:, 0] >> 16, _AVI_VIDEO)  # last two letters of the name
    _, _, offsets, sizes = entries.astype(np.int64).T
    if (offsets[1:] < offsets[:-1] + 8 + sizes[:-1]).any():
        return 'its index is damaged'
    if np.count_nonzero(sizes[is_video]) != num_packets:
        return 'its index does not match its frames'
    return None
