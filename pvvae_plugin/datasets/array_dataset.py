"""Dataset of the videos in one array on disk."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from pvvae_plugin.registry import DATASETS
from pvvae_plugin.safe_globals import load_array_safely

from .clip_dataset import ClipDataset


@DATASETS.register_module()
class VideoArrayDataset(ClipDataset):
    """Dataset of a memory-mapped ``.npy`` file with uint8 RGB videos ``(N, T, H, W, 3)``.

    Args:
        data_root: The file.
        clip_len: Frames per clip. At ``frame_interval``, a clip must fit into ``T`` frames.
        **kwargs: Passed to :class:`ClipDataset`.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the array has another dtype or shape, or its videos are too short.

    Example:
        >>> from pvvae_plugin.registry import DATASETS
        >>> np.save('videos.npy', np.zeros((10, 20, 32, 32, 3), np.uint8))  # (N, T, H, W, 3)
        >>> pipeline = [dict(type='PackClip')]
        >>> dataset = DATASETS.build(
        ...     dict(type='VideoArrayDataset', data_root='videos.npy', clip_len=9, pipeline=pipeline)
        ... )
        >>> len(dataset), dataset[0]['inputs'].shape
        (10, torch.Size([3, 9, 32, 32]))
    """

    def __init__(self, data_root: str, clip_len: int, **kwargs: Any) -> None:
        path = os.fspath(data_root)
        if not os.path.isfile(path):
            raise FileNotFoundError(f'data_root {path!r} is not a file (current folder: {os.getcwd()})')
        array = load_array_safely(path, mmap_mode='r')
        shape, dtype = array.shape, array.dtype
        if dtype != np.uint8 or len(shape) != 5 or shape[4] != 3 or not min(shape):
            raise ValueError(
                f'{path} contains {dtype} {shape}, but videos must be uint8 RGB (N, T, H, W, 3): scale values to '
                '0..255, round them, and put the channels last'
            )
        self._num_videos, self._num_frames = shape[:2]
        super().__init__(clip_len=clip_len, data_root=path, **kwargs)
        span = (clip_len - 1) * self.frame_interval + 1
        if self._num_frames < span:
            raise ValueError(
                f'the videos of {path} have {self._num_frames} frames, but clips of {clip_len} frames at an interval '
                f'of {self.frame_interval} need {span}'
            )

    def _join_prefix(self) -> None:
        """Do nothing: ``data_root`` is the file itself."""

    def load_data_list(self) -> list[dict]:
        name = f'{self.data_root}[{{}}]'
        return [
            {'path': name.format(i), 'file': self.data_root, 'number': i, 'label': None}
            for i in range(self._num_videos)
        ]

    def load_clip(self, info: dict, rng: np.random.Generator) -> np.ndarray:
        span = (self.clip_len - 1) * self.frame_interval + 1
        start = min(int(self.draw_position(rng) * (self._num_frames - span + 1)), self._num_frames - span)
        # Map the file on each call: an array stored on the dataset would be pickled whole for each worker.
        video = np.load(self.data_root, mmap_mode='r', allow_pickle=False)[info['number']]
        return np.array(video[start : start + span : self.frame_interval])
