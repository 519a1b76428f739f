"""Inferencers for notebooks, and video input and output."""

from .autoencoder_inferencer import VideoAutoencoderInferencer
from .generator_inferencer import VideoGeneratorInferencer
from .video_input import read_video, stream_frames
from .video_output import write_clip

__all__ = ['VideoAutoencoderInferencer', 'VideoGeneratorInferencer', 'read_video', 'stream_frames', 'write_clip']
