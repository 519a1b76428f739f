"""Readers of video files and images, one module per decoder. All implement :class:`VideoReader`."""

from .base import VideoReader
from .decord_reader import DecordReader
from .image_reader import ImageReader
from .opencv_reader import OpenCVReader
from .opening import iterate_frames, open_video, read_clip
from .pyav_reader import PyAVReader

__all__ = [
    'DecordReader',
    'ImageReader',
    'OpenCVReader',
    'PyAVReader',
    'VideoReader',
    'iterate_frames',
    'open_video',
    'read_clip',
]
