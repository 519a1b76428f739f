"""Base class of all clip datasets: keyed random draws, and substitutes for unreadable clips."""

from __future__ import annotations

import logging
import random
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log
from torch.utils.data import get_worker_info

from pvvae_plugin.functional.keyed_random import derive_key, numpy_rng

from .checking.worker_watchdog import note_done, note_reading
from .clip_index import ClipIndex
from .errors import ClipError, NoReadableClipError

TEST_CLIPS = ('middle', 'first', 'random')
MAX_LISTED = 20


class ClipDataset(BaseDataset):
    """Base class of datasets whose samples are clips.

    Subclasses implement :meth:`load_data_list` and :meth:`load_clip`. The pipeline gets a dict with ``frames`` (uint8
    RGB ``(T, H, W, 3)``), ``rng`` (random generator for the transforms), ``draw_key``, ``label``, ``path``, ``fps``,
    ``test_mode`` and ``size`` (see :class:`ClipIndex`). If the requested clip was replaced, the dict also has
    ``substituted_path`` (the requested file) and ``skipped_clips`` (paths and reasons of the failed clips).

    All random draws of a sample depend only on its key. The key comes from the sampler (:class:`ClipIndex`). Other
    samplers get a constant key per index in ``test_mode`` and a new one on each access in training, so crops differ
    between epochs. The sampler's key also seeds the global generators of ``random``, NumPy and torch (CPU), which makes
    transforms that draw from them (such as mmcv's) reproducible.

    Args:
        clip_len: Frames ``T`` per clip.
        frame_interval: Read every n-th frame of the source.
        pipeline: Transforms as configs or callables.
        test_mode: Whether to repeat the same draws on each access to an index.
        seed: Seed of the draws in ``test_mode``.
        max_substitutes: Maximum number of other clips to try if a clip cannot be read.
        test_clip: Position of the clip in a longer video in ``test_mode``: ``'middle'``, ``'first'`` or ``'random'``
            (drawn once per video and then constant).
        **kwargs: Passed to ``mmengine.dataset.BaseDataset``: ``data_root``, ``ann_file``, ``metainfo``,
            ``indices``, ...

    Attributes:
        skipped (dict[str, str]): Files that this process could not read, with the reason.

    Raises:
        ValueError: If ``clip_len`` or ``frame_interval`` is not positive, or the dataset is empty.

    Example:
        >>> from pvvae_plugin.datasets import ClipDataset
        >>> class GrayClips(ClipDataset):
        ...     def load_data_list(self):
        ...         return [dict(path=f'gray/{level}', level=level, label=None) for level in (0, 128, 255)]
        ...     def load_clip(self, info, rng):
        ...         return np.full((self.clip_len, 32, 32, 3), info['level'], np.uint8)
        >>> sample = GrayClips(clip_len=9)[1]
        >>> sample['path'], sample['frames'].shape
        ('gray/128', (9, 32, 32, 3))
    """

    def __init__(
        self,
        clip_len: int,
        frame_interval: int = 1,
        pipeline: Sequence[dict | Callable] = (),
        test_mode: bool = False,
        seed: int = 0,
        max_substitutes: int = 20,
        test_clip: str = 'middle',
        **kwargs: Any,
    ) -> None:
        if test_clip not in TEST_CLIPS:
            raise ValueError(f'test_clip must be one of {", ".join(TEST_CLIPS)}, got {test_clip!r}')
        for name, value in (('clip_len', clip_len), ('frame_interval', frame_interval)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f'{name} must be a positive integer, got {value!r}')
        self.clip_len = clip_len
        self.frame_interval = frame_interval
        self.seed = seed
        self.max_substitutes = max_substitutes
        self.test_clip = test_clip
        self.skipped: dict[str, str] = {}
        self._fresh_draws = 0
        super().__init__(pipeline=pipeline, test_mode=test_mode, **kwargs)

    @abstractmethod
    def load_data_list(self) -> list[dict]:
        """Return one dict per clip, with ``path`` (used in messages) and ``label`` (int or None)."""

    @abstractmethod
    def load_clip(self, info: dict, rng: np.random.Generator) -> np.ndarray:
        """Return the frames of a clip.

        Args:
            info: A copy of the clip's dict from :meth:`load_data_list`. Implementations may set ``info['fps']``.
            rng: Random generator, e.g. to draw the first frame.

        Returns:
            uint8 RGB ``(clip_len, H, W, 3)``.

        Raises:
            ClipError: If the clip cannot be read. Another clip is then loaded instead; the same holds for ``OSError``.
        """

    def draw_position(self, rng: np.random.Generator) -> float:
        """Return the position of the clip in a longer video, from 0 (first possible clip) to just below 1 (last)."""
        if self.test_mode and self.test_clip != 'random':
            return {'middle': 0.5, 'first': 0.0}[self.test_clip]
        return rng.random()

    def filter_data(self) -> list[dict]:
        data_list = super().filter_data()
        if not data_list:
            raise ValueError(f'{type(self).__name__} has no clips: load_data_list() returned an empty list')
        return data_list

    def __getitem__(self, idx: int) -> Any:
        """Return the sample at ``idx`` after the pipeline.

        Raises:
            IndexError: If the index is out of range.
            NoReadableClipError: If neither the clip nor any of ``max_substitutes`` others can be read.
        """
        if not self._fully_initialized:
            self.full_init()
        if not -len(self) <= idx < len(self):
            raise IndexError(f'index {int(idx)} out of range for {len(self)} clips')
        index = int(idx) % len(self)
        if isinstance(idx, ClipIndex):
            draw_key = idx.draw_key
            _seed_global_generators(derive_key(draw_key, 'global'))
        else:
            draw_key = derive_key(self.seed, 'test', index) if self.test_mode else self._fresh_key(index)

        info, frames, failures = self._load_or_substitute(index, draw_key)
        results = {
            'frames': frames,
            'rng': numpy_rng(draw_key, 'pipeline'),
            'draw_key': draw_key,
            'label': info.get('label'),
            'path': info['path'],
            'fps': info.get('fps', 0.0),
            'test_mode': self.test_mode,
            'size': idx.size if isinstance(idx, ClipIndex) else None,
        }
        if failures:
            results['substituted_path'] = failures[0].path
            results['skipped_clips'] = [(error.path, error.reason) for error in failures]
        return self.pipeline(results)

    def _fresh_key(self, index: int) -> int:
        """Return a new key on each call, for indices without a key."""
        worker = get_worker_info()
        if worker is None:
            return derive_key('fresh', int(torch.randint(2**62, ()).item()), index)
        # A worker's seed changes with each epoch, or, if workers persist, the count keeps increasing. The worker's own
        # generators cannot be used: MMEngine seeds them identically in every epoch.
        self._fresh_draws += 1
        return derive_key('fresh', worker.seed, self._fresh_draws, index)

    def _load_or_substitute(self, index: int, draw_key: int) -> tuple[dict, np.ndarray, list[ClipError]]:
        """Return info and frames of the clip or its first readable substitute, and the errors of all failed clips."""
        failures: dict[int, ClipError] = {}
        while len(failures) <= self.max_substitutes and len(failures) < len(self):
            if failures:
                index = self._another(derive_key(draw_key, 'substitute', len(failures)), failures)
            info = self.get_data_info(index)
            note_reading(info['path'])
            try:
                frames = self.load_clip(info, numpy_rng(draw_key, 'clip'))
            except (ClipError, OSError) as error:
                if not isinstance(error, ClipError):  # subclasses may let an OSError of open() through
                    error = ClipError(info['path'], f'{type(error).__name__}: {error.strerror or error}')
                failures[index] = error
                self._report(error)
                continue
            finally:
                note_done()
            self._check_frames(frames, info['path'])
            return info, frames, list(failures.values())
        listing = '\n'.join(f'  {error}' for error in list(failures.values())[:MAX_LISTED])
        if len(failures) > MAX_LISTED:
            listing += f'\n  and {len(failures) - MAX_LISTED} more'
        raise NoReadableClipError(
            f'none of {len(failures)} clips in a row could be read (the requested one and its substitutes, '
            f'max_substitutes={self.max_substitutes}, {len(self)} clips in total):\n{listing}\n'
            'Check that data_root is the right folder and the files are complete, and remove broken files from the '
            'ann_file (tools/verify_dataset.py finds them and writes a cleaned list).'
        )

    def _another(self, key: int, failures: dict[int, ClipError]) -> int:
        """Return a uniformly distributed index that is not among the failed ones."""
        index = key % (len(self) - len(failures))
        for failed in sorted(failures):
            index += failed <= index
        return index

    def _report(self, error: ClipError) -> None:
        if error.path not in self.skipped:
            self.skipped[error.path] = error.reason
            print_log(
                f'skipped {error.path}: {error.reason}. Another clip is used instead '
                f'({len(self.skipped)} unreadable so far in this process)',
                logger='current',
                level=logging.WARNING,
            )

    def _check_frames(self, frames: np.ndarray, path: str) -> None:
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[0] != self.clip_len or frames.shape[3] != 3:
            raise ValueError(
                f'{type(self).__name__}.load_clip must return uint8 frames of shape ({self.clip_len}, H, W, 3), got '
                f'{frames.dtype} {frames.shape} for {path}'
            )


def _seed_global_generators(key: int) -> None:
    random.seed(key)
    np.random.seed(key % 2**32)
    # Not torch.manual_seed: it also seeds GPUs, and without a GPU takes a hundred times as long.
    torch.default_generator.manual_seed(key)
