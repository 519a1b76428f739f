"""Dataset wrapper that prefers clips with motion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from pvvae_plugin.functional.keyed_random import derive_key, numpy_rng
from pvvae_plugin.registry import DATASETS

from .clip_index import ClipIndex


@DATASETS.register_module()
class MotionWeightedDataset(Dataset):
    """Dataset wrapper that draws several clips per sample and keeps one, with a preference for motion (ours).

    On footage that hardly moves, repeating the last frame is already a good prediction, and a model learns little else.
    The candidates are the requested clip and random other clips of the dataset. The probability of keeping a clip is
    proportional to its motion (mean absolute difference of consecutive frames in gray levels) plus ``floor``. All draws
    depend only on the sampler's key, so they do not change with the number of workers or processes, or after a resume.
    The wrapper loads ``candidates`` times as many clips.

    Args:
        dataset: A dataset whose samples have uint8 clips ``(3, T, H, W)``, or its config.
        candidates: Number of clips drawn per sample.
        floor: Constant added to the motion, in gray levels, so that clips without motion are also drawn.

    Raises:
        ValueError: If ``candidates`` is less than 1, or ``floor`` is not positive.

    Example:
        >>> from pvvae_plugin.registry import DATASETS
        >>> clips = dict(type='SyntheticVideoDataset', length=8, clip_len=5, size=16, pipeline=[dict(type='PackClip')])
        >>> dataset = DATASETS.build(dict(type='MotionWeightedDataset', dataset=clips, candidates=2))
        >>> len(dataset), dataset[0]['inputs'].shape
        (8, torch.Size([3, 5, 16, 16]))
    """

    def __init__(self, dataset: Mapping[str, Any] | Dataset, candidates: int = 4, floor: float = 0.1) -> None:
        if not isinstance(candidates, int) or candidates < 1:
            raise ValueError(f'candidates must be a positive integer, got {candidates!r}')
        if not floor > 0:
            raise ValueError(f'floor must be positive, got {floor!r}: with 0, clips without motion are never drawn')
        self.dataset = DATASETS.build(dataset) if isinstance(dataset, Mapping) else dataset
        self.candidates = candidates
        self.floor = floor

    @property
    def metainfo(self) -> dict[str, Any]:
        """Meta information of the wrapped dataset."""
        return self.dataset.metainfo

    @property
    def skipped(self) -> dict[str, str]:
        """Unreadable files, see :class:`ClipDataset`."""
        return self.dataset.skipped

    def full_init(self) -> None:
        """See MMEngine's ``BaseDataset``."""
        self.dataset.full_init()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one of the candidates for ``index``, a sample of the wrapped dataset."""
        key = index.draw_key if isinstance(index, ClipIndex) else int(torch.randint(2**62, ()))
        size = index.size if isinstance(index, ClipIndex) else None
        samples = []
        for number in range(self.candidates):
            draw_key = derive_key(key, 'candidate', number)
            place = int(index) if number == 0 else draw_key % len(self.dataset)
            samples.append(self.dataset[ClipIndex(place, draw_key, size)])
        weights = [motion(sample['inputs']) + self.floor for sample in samples]
        shares = torch.tensor(weights, dtype=torch.float64).div(sum(weights)).numpy()
        return samples[int(numpy_rng(key, 'kept').choice(self.candidates, p=shares))]


def motion(clip: Tensor) -> float:
    """Return the mean absolute difference of consecutive frames of a uint8 clip ``(3, T, H, W)``, in gray levels.

    It is 0 for a single frame.
    """
    return clip.float().diff(dim=1).abs().mean().item() if clip.shape[1] > 1 else 0.0
