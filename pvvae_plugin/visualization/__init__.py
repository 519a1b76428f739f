"""Clips as pictures and files, and the hook and backend that show them during a run."""

from .full_disk import CurvesVisBackend
from .generation_hook import GenerationVisualizationHook
from .prediction_hook import PredictionVisualizationHook
from .sample_sheets import GRID_PANELS, SHEETS, choose_shown, write_sheets
from .strips import draw_panels, draw_strip, to_uint8
from .tensorboard import VideoTensorboardVisBackend
from .video_files import encode_gif, write_gif, write_video

__all__ = [
    'GRID_PANELS',
    'SHEETS',
    'CurvesVisBackend',
    'GenerationVisualizationHook',
    'PredictionVisualizationHook',
    'VideoTensorboardVisBackend',
    'choose_shown',
    'draw_panels',
    'draw_strip',
    'encode_gif',
    'to_uint8',
    'write_gif',
    'write_sheets',
    'write_video',
]
