"""The share of clips whose class is recognised, as a metric."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.evaluator import BaseMetric

from pvvae_plugin.functional.classification import wilson_interval
from pvvae_plugin.registry import METRICS

from .left_out import SUBSTITUTED
from .motion_classifier import check_labels, load_classifier


@METRICS.register_module()
class ClassAccuracy(BaseMetric):
    """How many clips a classifier takes for what they should be (ours).

    Read from each sample: ``generated`` where there is one, else ``reconstruction``; and ``label``. One classifier can
    judge many VAEs and generators; what it makes of reconstructions is what a generator with that VAE can hope for.

    Results, with the prefix ``class``:
        - ``accuracy``: share of clips that are recognised.
        - ``accuracy_low``, ``accuracy_high``: its 95 % interval (Wilson), of the sampling of clips alone.

    Clips that stand in for an unreadable file (``substituted_path``) are left out.

    Args:
        classifier: File that ``tools/analysis/train_classifier.py`` wrote.
        collect_device: See mmengine's ``BaseMetric``.
        prefix: See mmengine's ``BaseMetric``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or holds no such classifier.
    """

    default_prefix = 'class'

    def __init__(self, classifier: str | os.PathLike, collect_device: str = 'cpu', prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.classifier = load_classifier(Path(classifier)).requires_grad_(False)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Append one entry a sample: whether it was recognised, or :data:`SUBSTITUTED`.

        Raises:
            ValueError: If a clip has no label, or one that the classifier does not know.
        """
        labels = [sample.get('label') for sample in data_samples]
        check_labels(labels, self.classifier.logits.out_features)
        device = get_device()
        self.classifier.to(device)
        for sample, label in zip(data_samples, labels, strict=True):
            if sample.get('substituted_path'):
                self.results.append(SUBSTITUTED)
                continue
            clip = sample['generated'] if 'generated' in sample else sample['reconstruction']
            with torch.no_grad():
                guess = self.classifier(clip[None].to(device).float().clamp(-1, 1)).argmax().item()
            self.results.append(guess == label)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """The share, and its interval.

        Args:
            results: One entry a clip, :data:`SUBSTITUTED` where another clip took its place.
        """
        judged = [entry for entry in results if entry != SUBSTITUTED]
        if not judged:
            return {}
        low, high = wilson_interval(sum(judged), len(judged))
        return {'accuracy': sum(judged) / len(judged), 'accuracy_low': low, 'accuracy_high': high}
