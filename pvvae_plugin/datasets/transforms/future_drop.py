"""Selection of the groups that the encoder does not see."""

from __future__ import annotations

from mmcv.transforms import BaseTransform

from pvvae_plugin.registry import TRANSFORMS
from pvvae_plugin.temporal import frames_to_groups, most_dropped_groups

from .base import check_probability, rng_of


@TRANSFORMS.register_module()
class FutureDropSampler(BaseTransform):
    """Draw the number of dropped groups at the end: ``k ~ U{0, ..., floor((G - 1) * r)}`` (paper, section 3).

    Writes ``results['observed_groups']``, a tuple of ``G`` bools that is True for the first ``G - k``. The frames are
    unchanged, because the whole clip is the target.

    Args:
        temporal_ratio: Frames per group ``p_t``, the temporal ratio of the network.
        max_drop_ratio: ``r`` in [0, 1]. Group 0 is never dropped.

    Raises:
        ValueError: If an argument is out of range, or (in a pipeline) a clip does not have ``1 + m * p_t`` frames.

    Example:
        >>> from pvvae_plugin.registry import TRANSFORMS
        >>> drop = TRANSFORMS.build(dict(type='FutureDropSampler', temporal_ratio=4, max_drop_ratio=0.5))
        >>> clip = dict(frames=np.zeros((9, 32, 32, 3), np.uint8))  # 3 groups, at most 1 is dropped
        >>> sorted({drop(dict(clip))['observed_groups'] for _ in range(20)})
        [(True, True, False), (True, True, True)]
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
