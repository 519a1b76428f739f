"""Sampling from a trained generator: loading, first frames, and the folder of samples."""

from .first_frames import default_num_given, find_sources, read_first_frames
from .load_generator import load_generator, resolve_labels
from .sample_folder import SampleFolder
from .sheets import GRID_PANELS, SHEETS, choose_shown, write_sheets

__all__ = [
    'GRID_PANELS',
    'SHEETS',
    'SampleFolder',
    'choose_shown',
    'default_num_given',
    'find_sources',
    'load_generator',
    'read_first_frames',
    'resolve_labels',
    'write_sheets',
]
