"""Datasets of clips (video files, images, procedural clips, cached latents), samplers and transforms."""

from .array_dataset import VideoArrayDataset
from .clip_dataset import ClipDataset
from .clip_index import ClipIndex
from .concat_dataset import ConcatDataset
from .errors import ClipError, NoReadableClipError
from .latent_dataset import LatentDataset
from .motion_weighted import MotionWeightedDataset
from .readers import DecordReader, ImageReader, OpenCVReader, iterate_frames, open_video, read_clip
from .samplers import InfiniteClipSampler, MultiResolutionBatchSampler
from .synthetic import SyntheticVideoDataset
from .transforms import (
    CenterCropClip,
    FutureDropSampler,
    PackClip,
    RandomCropClip,
    RandomFlipClip,
    RandomTimeReverse,
    ResizeClip,
)
from .video_dataset import VideoDataset

__all__ = [
    'CenterCropClip',
    'ClipDataset',
    'ClipError',
    'ClipIndex',
    'ConcatDataset',
    'DecordReader',
    'FutureDropSampler',
    'ImageReader',
    'InfiniteClipSampler',
    'LatentDataset',
    'MotionWeightedDataset',
    'MultiResolutionBatchSampler',
    'NoReadableClipError',
    'OpenCVReader',
    'PackClip',
    'RandomCropClip',
    'RandomFlipClip',
    'RandomTimeReverse',
    'ResizeClip',
    'SyntheticVideoDataset',
    'VideoArrayDataset',
    'VideoDataset',
    'iterate_frames',
    'open_video',
    'read_clip',
]
