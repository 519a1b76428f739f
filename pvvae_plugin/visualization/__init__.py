"""Drawing clips as images and video files, and visualizer backends that log them."""

from .strips import draw_panels, draw_strip, to_uint8
from .video_files import encode_gif, write_gif, write_video
from .vis_backends import CurvesVisBackend, VideoTensorboardVisBackend

__all__ = [
    'CurvesVisBackend',
    'VideoTensorboardVisBackend',
    'draw_panels',
    'draw_strip',
    'encode_gif',
    'to_uint8',
    'write_gif',
    'write_video',
]
