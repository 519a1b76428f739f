"""Flow loss of a generator on held-out clips."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mmengine.evaluator import BaseMetric

from pvvae_plugin.registry import METRICS
from pvvae_plugin.structures import SUBSTITUTED

from .substitutes import readable_results


@METRICS.register_module()
class FlowLoss(BaseMetric):
    """Flow loss of held-out clips: mean squared error of the velocity on normalized latents (ours).

    Reads ``flow_losses`` from each sample, as returned by :class:`LatentVideoGenerator`: one loss per quarter of the
    path, at a time drawn from it. All quarters have the same weight, so the mean is over uniform times. A clip keeps
    its times and noise across validations, so losses within a run differ only through the weights.

    Results, with the prefix ``flow``:
        - ``loss``: mean over clips and times.
        - ``loss_q1`` to ``loss_q4``: mean over clips for each quarter, from noise (first) to data (last).

    The loss does not measure video quality. It cannot reach 0, because a noisy latent does not determine the velocity,
    and its minimum depends on the VAE. Only the normalization of the latents to unit deviation gives two VAEs a common
    scale. Use it to compare generators with the same VAE and ``condition_prob``; compare VAEs by generated videos.

    Clips that replace an unreadable file (``substituted_path``) are skipped; the log reports how many.

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
    fields = ('flow_losses',)  # read from every sample

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Append one entry per sample: its losses, or :data:`SUBSTITUTED`."""
        for sample in data_samples:
            left_out = sample.get('substituted_path')
            self.results.append(SUBSTITUTED if left_out else sample['flow_losses'].tolist())

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the mean over clips, in total and for each quarter of the path.

        Args:
            results: One entry per clip; :data:`SUBSTITUTED` marks a clip that replaced an unreadable one.
        """
        clips = readable_results('FlowLoss', results)
        if not clips:
            return {}
        parts = [math.fsum(losses) / len(clips) for losses in zip(*clips, strict=True)]
        return {
            'loss': math.fsum(parts) / len(parts),
            **{f'loss_q{number}': value for number, value in enumerate(parts, start=1)},
        }
