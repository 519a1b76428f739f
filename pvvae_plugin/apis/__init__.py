"""What scripts and notebooks call."""

from .autoencoder_inferencer import VideoAutoencoderInferencer
from .clip_facts import class_names, clip_geometry
from .configs import read_config
from .generation import load_generator, resolve_labels
from .generator_inferencer import VideoGeneratorInferencer
from .given_frames import default_num_given, find_sources, read_first_frames
from .launch import add_launch_arguments, end_processes, load_config, missing_together, start_processes
from .overrides import add_override_argument, apply_overrides
from .sample_folder import SampleFolder
from .video_input import read_video, stream_frames
from .video_output import write_clip

__all__ = [
    'SampleFolder',
    'VideoAutoencoderInferencer',
    'VideoGeneratorInferencer',
    'add_launch_arguments',
    'add_override_argument',
    'apply_overrides',
    'class_names',
    'clip_geometry',
    'default_num_given',
    'end_processes',
    'find_sources',
    'load_config',
    'load_generator',
    'missing_together',
    'read_config',
    'read_first_frames',
    'read_video',
    'resolve_labels',
    'start_processes',
    'stream_frames',
    'write_clip',
]
