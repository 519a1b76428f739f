"""Fréchet Video Distance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pvvae_plugin.functional.frechet import frechet_distance, frechet_without_groups
from pvvae_plugin.functional.jackknife import NUM_GROUPS, group_of
from pvvae_plugin.functional.moments import Moments, merge_all, merge_moments, moments, no_moments
from pvvae_plugin.registry import METRICS

from .set_metric import SetMetric, halves_or_others


class FrechetMetric(SetMetric):
    """Fréchet distance between Gaussians of features. Keeps only the moments of ten groups, not the features."""

    label = ''

    def reset(self) -> None:
        super().reset()
        empty = no_moments(self.features.extractor.feature_dim)
        self._groups = [[empty] * NUM_GROUPS for _ in self.fields]

    def add(self, indices: Sequence[int], features: Sequence[Tensor]) -> None:
        """Add clips; see :meth:`SetMetric.add`."""
        for groups, rows in zip(self._groups, features, strict=True):
            add_to_groups(groups, group_of(torch.tensor(indices)), rows)

    def state(self) -> list[list[Moments]]:
        """Return moments per field and group."""
        return self._groups

    def measure(self, states: Sequence[list[list[Moments]]]) -> dict[str, dict[str, Any]]:
        """Compute the distance; see :meth:`SetMetric.measure`.

        Raises:
            ValueError: If one of the sets has fewer than two clips.
        """
        judged, *truth = (
            [merge_all(parts) for parts in zip(*of_field, strict=True)] for of_field in zip(*states, strict=True)
        )
        paired = bool(truth)
        real = truth[0] if paired else groups_of(self._real.reference)
        whole_judged, whole_real = merge_all(judged), merge_all(real)
        if min(whole_judged.count, whole_real.count) < 2:
            raise ValueError(
                f'{self.label} needs at least 2 clips in each set, got {whole_judged.count} and {whole_real.count}'
            )
        ddof = self.protocol.ddof
        value = frechet_distance(whole_judged, whole_real, ddof).item()
        without: list[Tensor] = []
        if min(whole_judged.count, whole_real.count) >= 2 * NUM_GROUPS:
            without = [left for left in frechet_without_groups(judged, real, ddof, paired) if left is not None]
        enough = min(whole_judged.count, whole_real.count) >= 2 * self.features.extractor.feature_dim
        record = self.describe(
            f'r{self.label}' if paired else self.label,
            value,
            whole_judged.count,
            without,
            None if paired else self._floor(),
            lowest=0.0,
            extrapolate=enough,
        )
        dim = self.features.extractor.feature_dim
        if min(whole_judged.count, whole_real.count) <= dim:
            record['warnings'].append(
                f'{min(whole_judged.count, whole_real.count)} clips do not determine a covariance of {dim} features; '
                f'most of the value is bias, use more than {dim} clips'
            )
        return {record['name']: record}

    def _floor(self) -> dict[str, Any] | None:
        sets = halves_or_others(self._real)
        if sets is None:
            return None
        value = frechet_distance(moments(sets[0]), moments(sets[1]), self.protocol.ddof).item()
        return {'what': 'real against real', 'value': value, 'num_samples': len(sets[0])}


@METRICS.register_module()
class FVD(FrechetMetric):
    """Fréchet Video Distance (Unterthiner et al. 2018) of generated clips, or rFVD of reconstructions.

    With a ``reference``, compares the samples' ``generated`` with real clips. Without one, compares the set of all
    ``reconstruction`` with the set of all ``video``. See :class:`SetMetric` for the arguments.

    Results, named after frames and clips, e.g. ``FVD17_2048`` (``rFVD17_2048`` without a reference):
        - the distance, with the upward bias of a finite number of clips, like published values;
        - ``_low`` and ``_high``: 95 % confidence interval *at this number of clips*, from a jackknife over groups of
          clips (a bootstrap would not be centered on the value);
        - ``_unbiased``: jackknife estimate for infinitely many clips; needs twice as many clips as features;
        - ``_floor``: noise floor, the distance between two disjoint sets of real clips, which a perfect generator would
          get. If the dataset has too few clips, the sets are half as large and the floor is higher.

    Example:
        >>> from pathlib import Path
        >>> from pvvae_plugin.evaluation.motion_classifier import MotionClassifier, save_classifier
        >>> from pvvae_plugin.registry import METRICS
        >>> save_classifier(MotionClassifier(num_classes=7), Path('classifier.pth'), digest='')
        >>> extractor = dict(type='MotionFeatures', weights='classifier.pth')  # published numbers: I3DTorchScript
        >>> metric = METRICS.build(dict(type='FVD', extractor=extractor, protocol=dict(num_frames=5, num_samples=3)))
        >>> metric.process({}, [dict(video=video, reconstruction=video) for video in torch.rand(3, 3, 5, 32, 32)])
        >>> {name: round(value, 6) for name, value in metric.evaluate(size=3).items()}
        {'recon/rFVD5_3': 0.0}
    """

    label = 'FVD'


def add_to_groups(groups: list[Moments], group: Tensor, rows: Tensor) -> None:
    """Merge feature vectors ``(N, D)`` in place into the moments of their groups, ``(N,)``."""
    for i in group.unique().tolist():
        groups[i] = merge_moments(groups[i], moments(rows[group == i]))


def groups_of(features: Tensor) -> list[Moments]:
    """Compute moments per group for feature vectors ``(N, D)``, grouped by position."""
    groups = [no_moments(features.shape[1])] * NUM_GROUPS
    add_to_groups(groups, group_of(torch.arange(len(features))), features)
    return groups
