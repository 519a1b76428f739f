"""What scripts and notebooks call."""

from .clip_facts import class_names, clip_geometry
from .generation import load_generator, resolve_labels
from .given_frames import default_num_given, find_sources, read_first_frames
from .launch import add_launch_arguments, end_processes, load_config, start_processes
from .sample_folder import SampleFolder
from .video_input import stream_frames

__all__ = [
    'SampleFolder',
    'add_launch_arguments',
    'class_names',
    'clip_geometry',
    'default_num_given',
    'end_processes',
    'find_sources',
    'load_config',
    'load_generator',
    'read_first_frames',
    'resolve_labels',
    'start_processes',
    'stream_frames',
]
