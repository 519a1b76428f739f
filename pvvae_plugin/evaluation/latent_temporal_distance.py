"""Distance between latent frames over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from pvvae_plugin.functional.latent_distance import channel_sums, latent_scale, latent_temporal_distances
from pvvae_plugin.registry import METRICS
from pvvae_plugin.structures import SUBSTITUTED

from .substitutes import readable_results


@METRICS.register_module()
class LatentTemporalDistance(BaseMetric):
    """Latent Temporal Distance (paper, analysis): mean L2 distance between latent frames at each interval.

    Reads ``latents`` ``(C, t, h, w)``, the posterior's mode, from each sample. Averages
    :func:`pvvae_plugin.functional.latent_distance.latent_temporal_distances` over clips.

    Results, with the prefix ``ltd``:
        - ``i1``, ``i2``, ...: mean over clips at each interval, in latent frames.
        - ``i1_std``, ``i1_p5``, ``i1_p50``, ``i1_p95``: deviation and percentiles over clips at interval 1.
        - ``relative_i1``, ...: means divided by the distance of two unrelated latents; comparable across VAEs with
          different latent scales (ours).
        - ``per_interval``: the means as a list, rounded to 4 digits.

    Clips of a single latent frame and clips that replace an unreadable file (``substituted_path``) are skipped; the log
    reports how many.

    Args:
        collect_device: See mmengine's ``BaseMetric``.
        prefix: See mmengine's ``BaseMetric``.

    Attributes:
        per_clip (list[list[float]]): Distances per clip in the last evaluation, on rank 0.

    Example:
        >>> from pvvae_plugin.registry import METRICS
        >>> metric = METRICS.build(dict(type='LatentTemporalDistance'))
        >>> metric.process({}, [dict(latents=torch.arange(3.0).view(1, 3, 1, 1))])  # rises by 1 per latent frame
        >>> metric.evaluate(size=1)['ltd/per_interval']
        [1.0, 2.0]
    """

    default_prefix = 'ltd'
    fields = ('latents',)  # read from every sample

    def __init__(self, collect_device: str = 'cpu', prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.per_clip: list[list[float]] = []

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Append one entry per sample: distances (empty for a single frame) and channel sums, or SUBSTITUTED."""
        for sample in data_samples:
            if sample.get('substituted_path'):
                self.results.append(SUBSTITUTED)
                continue
            latents = sample['latents']
            distances = latent_temporal_distances(latents).tolist() if latents.shape[1] > 1 else []
            count, sums, squares = channel_sums(latents)
            self.results.append((distances, count, sums.cpu(), squares.cpu()))

    def compute_metrics(self, results: list) -> dict[str, float | list[float]]:
        """Compute the mean over clips for each interval, and the distribution at interval 1.

        Args:
            results: One entry per clip, see :meth:`process`.
        """
        read = readable_results('LatentTemporalDistance', results)
        clips = [entry for entry in read if entry[0]]
        if skipped := len(read) - len(clips):
            print_log(
                f'LatentTemporalDistance: skipped {skipped} of {len(results)} clips with a single latent frame',
                logger='current',
            )
        self.per_clip = [distances for distances, *_ in clips]
        if not clips:
            return {}
        counts, sums, squares = zip(*(entry[1:] for entry in clips), strict=True)
        scale = latent_scale(sum(counts), torch.stack(sums).sum(0), torch.stack(squares).sum(0)).item()
        longest = max(map(len, self.per_clip))
        means = [float(np.mean([d[i] for d in self.per_clip if i < len(d)])) for i in range(longest)]
        first = np.array([distances[0] for distances in self.per_clip])
        metrics: dict[str, float | list[float]] = {f'i{i}': mean for i, mean in enumerate(means, start=1)}
        metrics['i1_std'] = float(first.std())
        metrics |= {f'i1_p{p}': float(np.percentile(first, p)) for p in (5, 50, 95)}
        if scale:
            metrics |= {f'relative_i{i}': mean / scale for i, mean in enumerate(means, start=1)}
        metrics['per_interval'] = [round(mean, 4) for mean in means]
        return metrics
