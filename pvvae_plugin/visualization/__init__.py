"""Clips as pictures and files, and the hook and backend that show them during a run."""

from .prediction_hook import PredictionVisualizationHook
from .strips import draw_panels, draw_strip, to_uint8
from .tensorboard import VideoTensorboardVisBackend
from .video_files import encode_gif, write_gif, write_video

__all__ = [
    'PredictionVisualizationHook',
    'VideoTensorboardVisBackend',
    'draw_panels',
    'draw_strip',
    'encode_gif',
    'to_uint8',
    'write_gif',
    'write_video',
]
