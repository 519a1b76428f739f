"""Dataset of video files and images."""

from __future__ import annotations

import logging
import os
from functools import lru_cache
from typing import Any

import numpy as np
from mmengine.logging import print_log

from pvvae_plugin.missing import Missing
from pvvae_plugin.registry import DATASETS

from .annotations import read_annotations, read_class_file
from .clip_dataset import ClipDataset
from .errors import ClipError
from .folders import LeftOut, describe_left_out, scan_folder
from .readers import read_clip
from .readers.base import is_image

MAX_LOOKED_AT = 1000  # listed files that are looked up; each lookup is a request to the file system


@DATASETS.register_module()
class VideoDataset(ClipDataset):
    """Dataset of clips from video files, or of images as single-frame clips.

    The first of these that exists provides the files:

    - ``ann_file``, with one ``path`` or ``path label`` per line and labels from 0. With ``class_file``, the label is
      the class of the path's first folder, so UCF101's official lists work unchanged. A ``.csv`` lists video segments,
      see :func:`~pvvae_plugin.datasets.annotations.read_annotations`;
    - the folders ``data_root/CLASS/``, labeled in the order of ``class_file`` or in sorted order;
    - ``data_root/`` itself, without labels.

    In training, clips start at a random frame. In ``test_mode``, ``test_clip`` sets the position in the video or
    segment (default: the middle). The ``path`` of a segment has its times appended, ``a.mp4#t=1.5,4.25``.

    Args:
        data_root: Folder of the files.
        clip_len: Frames per clip. Must be 1 for images.
        ann_file: List of clips, relative to ``data_root`` or to the current folder.
        class_file: Class names, one per line (``1 ApplyEyeMakeup`` or ``ApplyEyeMakeup``), located like ``ann_file``.
            ``metainfo=dict(classes=...)`` is an alternative.
        backend: Decoder: ``'auto'`` (decord, then OpenCV, then PyAV for AV1), ``'decord'`` or ``'opencv'``.
        **kwargs: Passed to :class:`ClipDataset`.

    Attributes:
        left_out (list[LeftOut]): Files of the folder that are not read, such as other extensions. They are also logged.

    Raises:
        FileNotFoundError: If the folder or a list does not exist, or none of the listed files exists.
        ValueError: If no clip is found, clips are in nested folders, a label is out of range, or images are given with
            ``clip_len`` > 1.

    Example:
        >>> from pvvae_plugin.registry import DATASETS
        >>> from pvvae_plugin.visualization import write_video
        >>> for name in ('run/a', 'jump/b'):
        ...     write_video(f'videos/{name}.webm', np.zeros((20, 32, 48, 3), np.uint8), fps=8)
        >>> pipeline = [dict(type='CenterCropClip', size=32), dict(type='PackClip')]
        >>> dataset = DATASETS.build(dict(type='VideoDataset', data_root='videos', clip_len=9, pipeline=pipeline))
        >>> dataset.metainfo['classes'], dataset[0]['inputs'].shape
        (('jump', 'run'), torch.Size([3, 9, 32, 32]))
    """

    def __init__(
        self,
        data_root: str,
        clip_len: int,
        ann_file: str = '',
        class_file: str = '',
        backend: str = 'auto',
        **kwargs: Any,
    ) -> None:
        self.class_file = class_file
        self.backend = backend
        self.left_out: list[LeftOut] = []
        super().__init__(clip_len=clip_len, data_root=os.fspath(data_root), ann_file=ann_file, **kwargs)

    def _join_prefix(self) -> None:
        # MMEngine only looks in data_root, but official lists are often stored next to the folder of videos.
        missing = Missing()
        missing.collect(self._check_data_root)
        self.ann_file = missing.collect(self._locate, 'ann_file', self.ann_file)
        self.class_file = missing.collect(self._locate, 'class_file', self.class_file)
        missing.report()

    def _check_data_root(self) -> None:
        if not os.path.isdir(self.data_root):
            raise FileNotFoundError(
                f'data_root {self.data_root!r} is not a folder (seen from {os.getcwd()}): put the videos there or set '
                'data_root to their folder; docs/data.md shows the layouts'
            )

    def _locate(self, name: str, path: str) -> str:
        candidates = [os.path.join(self.data_root, path), path]
        found = next((candidate for candidate in candidates if os.path.isfile(candidate)), None)
        if path and found is None:
            raise FileNotFoundError(f'{name} not found: neither {" nor ".join(map(repr, candidates))} is a file')
        return found or ''

    def load_data_list(self) -> list[dict]:
        classes = read_class_file(self.class_file) if self.class_file else self._metainfo.get('classes')
        if self.ann_file:
            data_list = read_annotations(self.ann_file, self.data_root, classes, class_folders=bool(self.class_file))
            files = list(dict.fromkeys(_file_of(entry) for entry in data_list))
            if not any(map(os.path.isfile, files)):
                raise FileNotFoundError(
                    f'none of the {len(files)} files listed in {self.ann_file} exists, e.g. {files[0]}; paths in the '
                    f'list are relative to data_root ({self.data_root})'
                )
            _warn_of_missing(files, self.ann_file)
        else:
            data_list, classes, self.left_out = scan_folder(self.data_root, classes, images=self.clip_len == 1)
            if self.left_out:
                _warn_once(describe_left_out(self.data_root, self.left_out))
        image = next((file for file in map(_file_of, data_list) if is_image(file)), None)
        if image and self.clip_len > 1:
            raise ValueError(f'clip_len must be 1 for images, got {self.clip_len}: {image} is an image')
        if classes:
            self._metainfo['classes'] = tuple(classes)
        return data_list

    def load_clip(self, info: dict, rng: np.random.Generator) -> np.ndarray:
        # Draw once, not per decoder: decoders may count different numbers of frames.
        position = self.draw_position(rng)
        span = (self.clip_len - 1) * self.frame_interval + 1

        def choose_frames(num_frames: int) -> range:
            if num_frames < span:
                raise ClipError(
                    info['path'],
                    f'{num_frames} frames, but {self.clip_len} at an interval of {self.frame_interval} need {span}',
                )
            start = min(int(position * (num_frames - span + 1)), num_frames - span)
            return range(start, start + span, self.frame_interval)

        file = _file_of(info)
        try:
            frames, info['fps'] = read_clip(file, choose_frames, self.backend, info.get('segment'))
        except ClipError as error:
            # Name the segment: other segments of the same file may be readable.
            raise ClipError(error.path + info['path'].removeprefix(file), error.reason) from error
        return frames


def _file_of(info: dict) -> str:
    return info.get('file', info['path'])


def _warn_of_missing(files: list[str], ann_file: str) -> None:
    looked_at = files[:: -(-len(files) // MAX_LOOKED_AT)]
    missing = [file for file in looked_at if not os.path.isfile(file)]
    if missing:
        sampled = '' if len(looked_at) == len(files) else f'sampled from the {len(files)} '
        _warn_once(
            f'{len(missing)} of {len(looked_at)} files {sampled}listed in {ann_file} do not exist, e.g. {missing[0]}: '
            'other clips replace them; pvvae verify --write-list writes a list without them'
        )


@lru_cache
def _warn_once(message: str) -> None:
    """Log a warning, once per process: commands build the same dataset several times."""
    print_log(message, logger='current', level=logging.WARNING)
