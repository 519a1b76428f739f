"""Reversal of clips in time."""

from __future__ import annotations

from mmcv.transforms import BaseTransform

from pvvae_plugin.registry import TRANSFORMS

from .base import check_probability, rng_of


@TRANSFORMS.register_module()
class RandomTimeReverse(BaseTransform):
    """Reverse a clip in time with probability ``prob`` ("RandomReverse", paper, figure 2).

    Args:
        prob: Probability of reversing. The paper does not state it.

    Example:
        >>> from pvvae_plugin.registry import TRANSFORMS
        >>> reverse = TRANSFORMS.build(dict(type='RandomTimeReverse', prob=1.0))
        >>> frames = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1).repeat(3, axis=3)
        >>> reverse(dict(frames=frames))['frames'][:, 0, 0, 0].tolist()
        [4, 3, 2, 1, 0]
    """

    def __init__(self, prob: float) -> None:
        check_probability('prob', prob)
        self.prob = prob

    def transform(self, results: dict) -> dict:
        if rng_of(results).random() < self.prob:
            results['frames'] = results['frames'][::-1]
        return results
