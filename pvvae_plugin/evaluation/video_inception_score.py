"""Inception Score of videos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pvvae_plugin.functional.inception_score import inception_scores
from pvvae_plugin.functional.jackknife import NUM_GROUPS, group_of
from pvvae_plugin.registry import METRICS

from .kvd import FeatureSetMetric


@METRICS.register_module()
class VideoInceptionScore(FeatureSetMetric):
    """Inception Score (Salimans et al. 2016) of generated clips with a video classifier, usually C3D on UCF101.

    Reads ``generated`` from each sample. A ``reference`` does not change the score; its own score is reported as that
    of real clips. See :class:`SetMetric` for the arguments; the protocol sets the number of splits.

    Results, named after the classifier's input frames and the number of clips, e.g. ``IS16_2048``:
        - the mean score over the splits;
        - ``_std``: standard deviation over the splits, as usually published;
        - ``_low`` and ``_high``: as in :class:`FVD`;
        - ``_floor``: score of the real clips.

    Raises:
        ValueError: If the extractor does not return class probabilities.

    Example:
        >>> # Needs the published weights of C3D, see docs/evaluate.md.
        >>> from pvvae_plugin.registry import METRICS
        >>> c3d = dict(type='C3D', weights='weights/conv3d_deepnetA_ucf.npz', mean='weights/mean2.npz')
        >>> metric = METRICS.build(dict(type='VideoInceptionScore', extractor=c3d))  # doctest: +SKIP
        >>> metric.process({}, [dict(generated=torch.zeros(3, 16, 64, 64))] * 10)  # doctest: +SKIP
        >>> metric.evaluate(size=10)['gen/IS16_10']  # equal clips  # doctest: +SKIP
        1.0
    """

    label = 'IS'

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not getattr(self.features.extractor, 'is_classifier', False):
            raise ValueError(
                f'the Inception Score needs class probabilities, but {self.features.extractor.name} returns features; '
                "use extractor=dict(type='C3D')"
            )

    def prepare(self, num_frames: int, num_clips: int) -> None:
        """See :meth:`SetMetric.prepare`."""
        super().prepare(num_frames, num_clips)
        if num_clips < self.protocol.inception_splits:
            raise ValueError(
                f'the Inception Score over {self.protocol.inception_splits} splits needs as many clips, got '
                f'{num_clips}; use more clips, or set protocol=dict(inception_splits=1)'
            )

    @staticmethod
    def _is_paired(reference: Any) -> bool:
        return False

    def measure(self, states: Sequence[dict[int, list[Tensor]]]) -> dict[str, dict[str, Any]]:
        """Compute the score; see :meth:`SetMetric.measure`."""
        indices, (probabilities,) = self.in_order(states)
        splits = self.protocol.inception_splits
        scores = inception_scores(probabilities, splits)
        without: list[Tensor] = []
        if len(indices) >= 2 * max(NUM_GROUPS, splits):
            groups = group_of(indices)
            kept = (probabilities[groups != g] for g in range(NUM_GROUPS))
            without = [torch.stack([inception_scores(rows, splits).mean() for rows in kept])]
        floor = None
        if self._real is not None and len(self._real.reference) >= splits:
            real = inception_scores(self._real.reference, splits).mean().item()
            floor = {'what': 'real clips', 'value': real, 'num_samples': len(self._real.reference)}
        value = scores.mean().item()
        record = self.describe(self.label, value, len(indices), without, floor, lowest=1.0, extrapolate=False)
        record['std_over_splits'] = scores.std(unbiased=False).item()
        return {record['name']: record}

    def evaluate(self, size: int) -> dict[str, float]:
        """Extend :meth:`SetMetric.evaluate` by the standard deviation over the splits."""
        metrics = super().evaluate(size)
        prefix = f'{self.prefix}/' if self.prefix else ''
        for record in self.records.values():
            metrics[f'{prefix}{record["name"]}_std'] = record['std_over_splits']
        return metrics
