"""Infinite, resumable samplers whose order does not depend on the number of processes or workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler

from pvvae_plugin.functional.keyed_random import derive_key, numpy_rng
from pvvae_plugin.registry import DATA_SAMPLERS

from .clip_index import ClipIndex


@DATA_SAMPLERS.register_module()
class InfiniteClipSampler(Sampler):
    """Infinite stream of :class:`ClipIndex` that reshuffles the dataset on every pass.

    Position ``g`` of the stream is entry ``g % n`` of the order of pass ``g // n``. The order and the draw keys depend
    only on the seed, the pass and the index. Rank ``r`` of ``W`` takes positions ``r, r + W, ...``, so ``W`` processes
    with batch size ``B`` see the same samples as one process with batch size ``W * B``.

    Args:
        dataset: Any object with a length ``n``.
        seed: Seed of the order and the draws. It must be the same in all processes. None draws one and broadcasts it.
        shuffle: False keeps the dataset's order.

    Attributes:
        start (int): Number of samples that all processes together have consumed. Iteration starts after them.

    Example:
        >>> from itertools import islice
        >>> from pvvae_plugin.registry import DATA_SAMPLERS
        >>> sampler = DATA_SAMPLERS.build(dict(type='InfiniteClipSampler', dataset='abc', seed=0))
        >>> first = [int(index) for index in islice(sampler, 6)]
        >>> sorted(first[:3]), sorted(first[3:])  # each pass visits every clip once
        ([0, 1, 2], [0, 1, 2])
        >>> sampler.advance(4)  # resume after 4 clips
        >>> [int(index) for index in islice(sampler, 2)] == first[4:]
        True
    """

    def __init__(self, dataset: Sequence, seed: int | None = None, shuffle: bool = True) -> None:
        if len(dataset) == 0:
            raise ValueError('InfiniteClipSampler needs a dataset with at least one clip, got an empty dataset')
        self.dataset = dataset
        self.seed = sync_random_seed() if seed is None else seed
        self.shuffle = shuffle
        self.rank, self.world_size = get_dist_info()
        self.start = 0

    def advance(self, num_samples: int) -> None:
        """Skip the first ``num_samples`` of the stream (over all processes) without drawing them."""
        self.start = num_samples

    def __iter__(self) -> Iterator[ClipIndex]:
        length = len(self.dataset)
        position = self.start + self.rank
        epoch = None
        while True:
            if epoch != position // length:
                epoch = position // length
                order = self._order(epoch, length)
            index = int(order[position % length])
            yield ClipIndex(index, derive_key(self.seed, epoch, index))
            position += self.world_size

    def _order(self, epoch: int, length: int) -> np.ndarray:
        if not self.shuffle:
            return np.arange(length)
        return numpy_rng(self.seed, 'order', epoch).permutation(length)

    def __len__(self) -> int:
        """Return the length of the dataset, although the stream is infinite."""
        return len(self.dataset)


@DATA_SAMPLERS.register_module()
class MultiResolutionBatchSampler(Sampler):
    """Batch sampler that draws one resolution per batch, the same in all processes.

    The size is passed in :attr:`ClipIndex.size`, which overrides that of the resize and crop transforms. Small batches
    of large clips and large batches of small clips balance the cost per step (paper, stage 2).

    Args:
        sampler: An :class:`InfiniteClipSampler`.
        batch_size: Default batch size of the resolutions. MMEngine passes that of the data loader.
        resolutions: One ``dict(size=256, batch_size=4, weight=1.0)`` per resolution: size in pixels, clips per process,
            and relative frequency (default: 1).

    Raises:
        TypeError: If ``sampler`` is not an :class:`InfiniteClipSampler`.
        ValueError: If a resolution is invalid.

    Example:
        >>> from itertools import islice
        >>> from pvvae_plugin.datasets import InfiniteClipSampler
        >>> from pvvae_plugin.registry import DATA_SAMPLERS
        >>> resolutions = [dict(size=32, batch_size=4), dict(size=64, batch_size=1)]
        >>> config = dict(type='MultiResolutionBatchSampler', batch_size=4, resolutions=resolutions)
        >>> sampler = DATA_SAMPLERS.build(config, default_args=dict(sampler=InfiniteClipSampler('abcdef', seed=0)))
        >>> sorted({(batch[0].size, len(batch)) for batch in islice(sampler, 20)})
        [(32, 4), (64, 1)]
    """

    def __init__(self, sampler: InfiniteClipSampler, batch_size: int, resolutions: Sequence[dict]) -> None:
        if not isinstance(sampler, InfiniteClipSampler):
            raise TypeError(
                f'MultiResolutionBatchSampler needs an InfiniteClipSampler, got {type(sampler).__name__}: sizes and '
                'draws must be the same in all processes and after a resume'
            )
        self.sampler = sampler
        self.resolutions = [{'batch_size': batch_size, 'weight': 1.0, **resolution} for resolution in resolutions]
        if not self.resolutions:
            raise ValueError('resolutions is empty; give at least one, e.g. [dict(size=256, batch_size=4)]')
        for resolution in self.resolutions:
            known = resolution.keys() == {'size', 'batch_size', 'weight'}
            if not known or min(resolution['size'], resolution['batch_size']) < 1 or resolution['weight'] <= 0:
                raise ValueError(
                    f'a resolution must be dict(size=256, batch_size=4, weight=1.0), all positive, got {resolution}'
                )
        self._weights = np.array([resolution['weight'] for resolution in self.resolutions], dtype=float)
        self._weights /= self._weights.sum()
        self._bounds = self._weights.cumsum()[:-1]
        self.start = 0

    def advance(self, num_batches: int, num_samples: int | None = None) -> int:
        """Skip the first ``num_batches`` batches without drawing their clips.

        Args:
            num_batches: Number of batches per process.
            num_samples: Number of samples over all processes. None computes it from the current settings.

        Returns:
            The number of skipped samples.
        """
        self.start = num_batches
        if num_samples is None:
            sizes = (self._resolution(step)['batch_size'] for step in range(num_batches))
            num_samples = sum(sizes) * self.sampler.world_size
        self.sampler.advance(num_samples)
        return num_samples

    def __iter__(self) -> Iterator[list[ClipIndex]]:
        indices = iter(self.sampler)
        step = self.start
        while True:
            resolution = self._resolution(step)
            batch = (next(indices) for _ in range(resolution['batch_size']))
            yield [ClipIndex(int(index), index.draw_key, resolution['size']) for index in batch]
            step += 1

    def _resolution(self, step: int) -> dict:
        draw = derive_key(self.sampler.seed, 'resolution', step) / 2**63
        return self.resolutions[int(np.searchsorted(self._bounds, draw, side='right'))]

    def __len__(self) -> int:
        """Return the approximate number of batches per pass over the dataset, although the stream is infinite."""
        mean = self._weights @ [resolution['batch_size'] for resolution in self.resolutions]
        return max(1, round(len(self.sampler) / mean))
