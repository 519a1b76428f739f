"""Clips from video files and images."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from pvvae_plugin.registry import DATASETS

from .annotations import read_annotations, read_class_file, scan_folder
from .clip_dataset import ClipDataset
from .errors import ClipError
from .readers import read_clip
from .readers.base import is_image


@DATASETS.register_module()
class VideoDataset(ClipDataset):
    """Clips of video files, or images as clips of one frame.

    The files are

    - those of ``ann_file``, one ``path`` or ``path label`` a line, labels from 0; with ``class_file`` the label is the
      class of the path's first folder, so that UCF101's official lists serve as they are. A list whose name ends in
      ``.csv`` names segments of videos, see :func:`~pvvae_plugin.datasets.annotations.read_annotations`; or else
    - those of ``data_root/CLASS/``, labelled by the classes in sorted order, or in that of ``class_file``; or else
    - those of ``data_root/`` itself, unlabelled.

    In training the clip starts at a random frame, in ``test_mode`` it is that of ``test_clip``, by default the middle
    of the video or the segment. The ``path`` of a segment's clip is the file's with the times behind it,
    ``a.mp4#t=1.5,4.25``.

    Args:
        data_root: Folder of the files.
        clip_len: Frames of a clip; 1 to read images.
        ann_file: List of clips, looked for in ``data_root`` and then as the path stands.
        class_file: Names of the classes, one a line (``1 ApplyEyeMakeup`` or ``ApplyEyeMakeup``), looked for likewise.
            ``metainfo=dict(classes=...)`` serves the same end.
        backend: Decoder: ``'auto'`` (decord, then OpenCV), ``'decord'`` or ``'opencv'``.
        **kwargs: Passed to :class:`ClipDataset`.

    Raises:
        FileNotFoundError: If the folder or a list is missing, or none of the listed files exists.
        ValueError: If there is no clip, a label is out of range, or images are given with ``clip_len`` > 1.

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
        super().__init__(clip_len=clip_len, data_root=os.fspath(data_root), ann_file=ann_file, **kwargs)

    def _join_prefix(self) -> None:
        # MMEngine looks in data_root alone; official lists often lie beside the videos, not inside.
        if not os.path.isdir(self.data_root):
            raise FileNotFoundError(
                f'data_root {self.data_root!r} is not a folder (seen from {os.getcwd()}): put the videos there or set '
                'data_root to where they are; docs/data.md shows the layouts'
            )
        self.ann_file = self._locate('ann_file', self.ann_file)
        self.class_file = self._locate('class_file', self.class_file)

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
                    f'none of the {len(files)} files of {self.ann_file} exists; the first one was looked for at '
                    f'{files[0]}. Paths in the list are relative to data_root ({self.data_root})'
                )
        else:
            data_list, classes = scan_folder(self.data_root, classes, images=self.clip_len == 1)
        image = next((file for file in map(_file_of, data_list) if is_image(file)), None)
        if image and self.clip_len > 1:
            raise ValueError(f'{image} is an image, a clip of one frame: clip_len must be 1, got {self.clip_len}')
        if classes:
            self._metainfo['classes'] = tuple(classes)
        return data_list

    def load_clip(self, info: dict, rng: np.random.Generator) -> np.ndarray:
        # Drawn once, and not per decoder: counts may differ between them.
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
            # Another segment of the same file may be whole.
            raise ClipError(error.path + info['path'].removeprefix(file), error.reason) from error
        return frames


def _file_of(info: dict) -> str:
    return info.get('file', info['path'])
