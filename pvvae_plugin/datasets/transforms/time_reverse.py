"""Playing clips backwards."""

from __future__ import annotations

from mmcv.transforms import BaseTransform

from pvvae_plugin.registry import TRANSFORMS

from .generator import check_probability, generator_of


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
        if generator_of(results).random() < self.prob:
            results['frames'] = results['frames'][::-1]
        return results
