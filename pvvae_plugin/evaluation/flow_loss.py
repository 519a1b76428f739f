"""How well a generator's velocity fits clips it has not seen."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from pvvae_plugin.registry import METRICS
from pvvae_plugin.structures import SUBSTITUTED


@METRICS.register_module()
class FlowLoss(BaseMetric):
    """Flow loss of held-out clips: mean squared error of the velocity on normalised latents (ours).

    Read from each sample: ``flow_losses``, one at a time drawn from each part of the path, as
    :class:`LatentVideoGenerator` gives them. Every clip counts alike at every part, so the mean is that over uniform
    times. Times and noise are those of the clip at each validation: two numbers of one run differ by the weights alone.

    Results, with the prefix ``flow``:
        - ``loss``: mean over clips and times.
        - ``loss_q1`` to ``loss_q4``: mean over clips at the times of each part, the first at noise, the last at data.

    The loss does not measure the videos. It cannot fall to 0: its floor is what a noisy latent leaves open, which
    differs from one VAE's latents to another's. Losses of two VAEs share a scale only because each one's latents are
    normalised to unit deviation. Compare generators on one VAE, trained with one ``condition_prob``, by it, and VAEs
    by the videos made with them.

    Clips that stand in for an unreadable file (``substituted_path``) are left out, and the log says how many.

    Args:
        collect_device: See mmengine's ``BaseMetric``.
        prefix: See mmengine's ``BaseMetric``.

    Example:
        >>> from pvvae_plugin.registry import METRICS
        >>> metric = METRICS.build(dict(type='FlowLoss'))
        >>> metric.process({}, [dict(flow_losses=torch.tensor([4.0, 2.0, 1.0, 1.0]))])  # at times from noise to data
        >>> metric.evaluate(size=1)
        {'flow/loss': 2.0, 'flow/loss_q1': 4.0, 'flow/loss_q2': 2.0, 'flow/loss_q3': 1.0, 'flow/loss_q4': 1.0}
    """

    default_prefix = 'flow'

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Append one entry a sample: its losses, or :data:`SUBSTITUTED`."""
        for sample in data_samples:
            left_out = sample.get('substituted_path')
            self.results.append(SUBSTITUTED if left_out else sample['flow_losses'].tolist())

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Means over clips, in all and for each part of the path.

        Args:
            results: One entry a clip, :data:`SUBSTITUTED` where another clip took its place.
        """
        clips = [entry for entry in results if entry != SUBSTITUTED]
        if len(clips) < len(results):
            print_log(
                f'FlowLoss: {len(results) - len(clips)} of {len(results)} clips left out, because their files could '
                'not be read',
                logger='current',
                level=logging.WARNING,
            )
        if not clips:
            return {}
        parts = [math.fsum(losses) / len(clips) for losses in zip(*clips, strict=True)]
        return {
            'loss': math.fsum(parts) / len(parts),
            **{f'loss_q{number}': value for number, value in enumerate(parts, start=1)},
        }
