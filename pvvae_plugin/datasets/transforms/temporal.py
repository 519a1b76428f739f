"""Transforms in time: which groups of a clip the encoder sees, and playing clips backwards."""

from __future__ import annotations

from mmcv.transforms import BaseTransform

from pvvae_plugin.registry import TRANSFORMS
from pvvae_plugin.temporal import frames_to_groups, most_dropped_groups

from .base import check_probability, rng_of


@TRANSFORMS.register_module()
class FutureDropSampler(BaseTransform):
    """Draws how many groups at the end are dropped: ``k ~ U{0, ..., floor((G - 1) * r)}`` (paper, section 3).

    Writes ``results['observed_groups']``, a tuple of ``G`` bools: True for the first ``G - k``. The frames stay as they
    are, because the whole clip is the target.

    Args:
        temporal_ratio: Frames ``p_t`` of a group, the network's temporal compression.
        max_drop_ratio: ``r`` in [0, 1]. Group 0 is never dropped.

    Raises:
        ValueError: If an argument is out of range; in a pipeline, if a clip does not have ``1 + m * p_t`` frames.
    """

    def __init__(self, temporal_ratio: int = 4, max_drop_ratio: float = 1.0) -> None:
        check_probability('max_drop_ratio', max_drop_ratio)
        if temporal_ratio < 1:
            raise ValueError(f'temporal_ratio must be a positive integer, got {temporal_ratio}')
        self.temporal_ratio = temporal_ratio
        self.max_drop_ratio = max_drop_ratio

    def transform(self, results: dict) -> dict:
        num_groups = frames_to_groups(len(results['frames']), self.temporal_ratio)
        most = most_dropped_groups(num_groups, self.max_drop_ratio)
        num_observed = num_groups - int(rng_of(results).integers(most + 1))
        results['observed_groups'] = tuple(group < num_observed for group in range(num_groups))
        return results


@TRANSFORMS.register_module()
class RandomTimeReverse(BaseTransform):
    """Plays a clip backwards, or leaves it ("RandomReverse", paper, figure 2).

    Args:
        prob: Probability of reversing; the paper does not give one.
    """

    def __init__(self, prob: float) -> None:
        check_probability('prob', prob)
        self.prob = prob

    def transform(self, results: dict) -> dict:
        if rng_of(results).random() < self.prob:
            results['frames'] = results['frames'][::-1]
        return results
