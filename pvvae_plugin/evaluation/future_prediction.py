"""Prediction error of the dropped part of a clip, compared with baselines that ignore motion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from pvvae_plugin.functional.conversion import clamp_colors
from pvvae_plugin.functional.prediction_error import SquaredErrors, prediction_errors
from pvvae_plugin.registry import METRICS
from pvvae_plugin.structures import SUBSTITUTED
from pvvae_plugin.temporal import frames_to_groups, groups_to_frames

from .substitutes import readable_results


@METRICS.register_module()
class FuturePrediction(BaseMetric):
    """Mean squared error of predicted frames for each number ``k`` of dropped groups, on the scale [-1, 1].

    Reads ``video``, ``predictions`` (clamped to [-1, 1]) and ``temporal_ratio`` from each sample. Only unobserved
    frames count. The two baselines repeat the last observed frame or the mean of the observed frames. Means and ratios
    divide sums over the whole dataset; they are not means over clips.

    Results, with the prefix ``predict``, for each k:
        - ``k1_mse``, ``k1_repeat``, ``k1_mean``: errors of the model and of the two baselines.
        - ``k1_vs_repeat``, ``k1_vs_mean``: the model's error divided by a baseline's; below 1 beats the baseline.
        - ``k1_moving_mse`` and so on: the same over moving pixels, where copying does not help.

    A result is missing if no pixel moves or if the baseline's error is 0. Clips of a single frame and clips that
    replace an unreadable file (``substituted_path``) are skipped; the log reports how many.

    Args:
        threshold: See :func:`pvvae_plugin.functional.prediction_error.prediction_errors`.
        collect_device: See mmengine's ``BaseMetric``.
        prefix: See mmengine's ``BaseMetric``.

    Example:
        >>> from pvvae_plugin.registry import METRICS
        >>> metric = METRICS.build(dict(type='FuturePrediction'))
        >>> video = torch.linspace(-1, 1, 5).view(1, 5, 1, 1).expand(3, 5, 8, 8)  # brightens by 0.5 per frame
        >>> sample = dict(video=video, predictions={2: video - 0.25}, temporal_ratio=2)  # frames 3 and 4 predicted
        >>> metric.process({}, [sample])
        >>> metrics = metric.evaluate(size=1)
        >>> metrics['predict/k1_mse'], metrics['predict/k1_repeat'], metrics['predict/k1_vs_repeat']
        (0.0625, 0.625, 0.1)
    """

    default_prefix = 'predict'
    fields = ('predictions', 'video')  # read from every sample

    def __init__(self, threshold: float = 0.1, collect_device: str = 'cpu', prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.threshold = threshold

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Append one entry per sample: its sums for each k, or :data:`SUBSTITUTED`."""
        for sample in data_samples:
            self.results.append(SUBSTITUTED if sample.get('substituted_path') else self._sums(sample))

    def _sums(self, sample: dict) -> dict[int, list[float]]:
        """Return the eight sums of :class:`SquaredErrors` by number of dropped groups; empty for a single frame."""
        video, ratio = sample['video'], sample['temporal_ratio']
        num_groups = frames_to_groups(video.shape[1], ratio)
        sums = {}
        for observed, prediction in sample.get('predictions', {}).items():
            errors = prediction_errors(
                video[None], clamp_colors(prediction[None]), groups_to_frames(observed, ratio), self.threshold
            )
            sums[num_groups - observed] = torch.cat(errors).tolist()
        return sums

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute errors and ratios for each k.

        Args:
            results: One entry per clip: empty if nothing was predicted, :data:`SUBSTITUTED` if the clip replaced an
                unreadable one.
        """
        read = readable_results('FuturePrediction', results)
        clips = [entry for entry in read if entry]
        if skipped := len(read) - len(clips):
            print_log(
                f'FuturePrediction: skipped {skipped} of {len(results)} clips with nothing to predict', logger='current'
            )
        metrics: dict[str, float] = {}
        for k in sorted({k for clip in clips for k in clip}):
            per_clip = torch.tensor([clip[k] for clip in clips if k in clip], dtype=torch.float64)
            total = SquaredErrors(*per_clip.sum(dim=0).tolist())
            metrics.update(_summarize(f'k{k}_', total.model, total.repeat, total.mean, total.count))
            metrics.update(
                _summarize(
                    f'k{k}_moving_', total.moving_model, total.moving_repeat, total.moving_mean, total.moving_count
                )
            )
        return metrics


def _summarize(prefix: str, model: float, repeat: float, mean: float, count: float) -> dict[str, float]:
    """Turn sums of squared errors into means and ratios, without those that would divide by zero."""
    if not count:
        return {}
    metrics = {'mse': model / count, 'repeat': repeat / count, 'mean': mean / count}
    if repeat:
        metrics['vs_repeat'] = model / repeat
    if mean:
        metrics['vs_mean'] = model / mean
    return {prefix + name: value for name, value in metrics.items()}


def format_prediction_table(metrics: dict[str, float]) -> str:
    """Format results of :class:`FuturePrediction` as a text table with one row per number of dropped groups.

    Args:
        metrics: Results without the metric's prefix, e.g. ``{'k1_mse': 0.02, ...}``.

    Returns:
        The table; a dash marks a missing result.

    Example:
        >>> from pvvae_plugin.evaluation import format_prediction_table
        >>> table = format_prediction_table({'k1_mse': 0.02, 'k1_vs_repeat': 0.8})
        >>> table.splitlines()[2].split()
        ['1', '0.0200', '-', '-', '0.8000', '-', '-', '-']
    """
    columns = {
        'MSE': 'mse',
        'repeat': 'repeat',
        'mean': 'mean',
        'MSE/repeat': 'vs_repeat',
        'MSE/mean': 'vs_mean',
        'moving MSE/repeat': 'moving_vs_repeat',
        'moving MSE/mean': 'moving_vs_mean',
    }
    rows = [['dropped groups', *columns]]
    for k in sorted({int(name[1:].split('_')[0]) for name in metrics}):
        values = [metrics.get(f'k{k}_{key}') for key in columns.values()]
        rows.append([str(k), *('-' if value is None else f'{value:.4f}' for value in values)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ['  '.join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    title = 'Future prediction: mean squared errors on [-1, 1] (a ratio below 1 beats the baseline)'
    return '\n'.join([title, *lines])
