"""Class accuracy of a class-conditional generator, measured with a classifier trained on real clips (ours)."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.evaluator import BaseMetric
from torch import Tensor, nn
from torch.utils.data import Dataset

from pvvae_plugin.datasets import SyntheticVideoDataset
from pvvae_plugin.datasets.transforms.base import without_transforms
from pvvae_plugin.functional.classification import confusion_counts, wilson_interval
from pvvae_plugin.functional.keyed_random import numpy_rng
from pvvae_plugin.models import LatentVideoGenerator
from pvvae_plugin.progress import ProgressBar
from pvvae_plugin.registry import DATASETS, METRICS
from pvvae_plugin.structures import SUBSTITUTED

from .motion_classifier import check_labels, load_classifier
from .reference import listing_sha256
from .substitutes import readable_clips, readable_results

# Transforms to remove: a clip played backwards shows another motion under the same label.
REMOVED = ('FutureDropSampler', 'RandomTimeReverse')
HELD_OUT_SEED = 1_000_003  # added to the seed of procedural clips
LabeledBatches = Iterable[tuple[Tensor, Sequence[int]]]


class LabeledData(NamedTuple):
    """Labeled clips for training a classifier, held-out clips for testing it, and the class names.

    ``train_files`` is a digest of the training files, or None for procedural clips.
    """

    train: Dataset
    train_config: dict
    train_files: str | None
    held_out: Dataset
    held_out_config: dict
    classes: tuple[str, ...]


def build_labeled_data(cfg: Config, num: int) -> LabeledData:
    """Build the labeled training and held-out clips of a generator's config.

    Procedural datasets hold out clips drawn with another seed. Other datasets use those of ``val_dataloader``.

    Args:
        cfg: Config of a generator.
        num: Number of procedural clips to hold out.

    Raises:
        ValueError: If the clips are latents, have no labels or class names, or none can be held out; if the held-out
            clips have other classes.
    """
    train_config = without_transforms(cfg.train_dataloader.dataset, REMOVED)
    train = DATASETS.build(train_config)
    if isinstance(train, SyntheticVideoDataset):
        seed = train.seed + HELD_OUT_SEED
        held_out_config = {**train_config, 'seed': seed, 'length': num, 'test_mode': True}
    elif cfg.get('val_dataloader'):
        held_out_config = without_transforms(cfg.val_dataloader.dataset, REMOVED)
    else:
        raise ValueError('the config has no val_dataloader; add one with clips to test the classifier on')
    held_out = DATASETS.build(held_out_config)
    for dataset in (train, held_out):
        clip, label = dataset[0]['inputs'], dataset[0]['data_samples'].metainfo.get('label')
        if clip.dtype != torch.uint8 or clip.dim() != 4 or clip.shape[0] != 3:
            raise ValueError(
                f'{type(dataset).__name__} returns {clip.dtype} {tuple(clip.shape)}; class accuracy needs uint8 clips '
                '(3, T, H, W), not cached latents: use a config whose train_dataloader reads clips'
            )
        if label is None:
            raise ValueError(f'{type(dataset).__name__} has no labels; class accuracy needs a labeled dataset')
    classes = train.metainfo.get('classes')
    if not classes:
        raise ValueError(f"{type(train).__name__} has no class names; set metainfo=dict(classes=('run', 'jump', ...))")
    of_held_out = held_out.metainfo.get('classes')
    if of_held_out and tuple(of_held_out) != tuple(classes):
        raise ValueError(
            f'the training clips have the classes {", ".join(classes)}, but the held-out clips have '
            f'{", ".join(of_held_out)}, so the same label means different classes; write the names to a file, one per '
            'line, and set class_file to it in the datasets of train_dataloader and val_dataloader'
        )
    files = None if isinstance(train, SyntheticVideoDataset) else listing_sha256(train, range(len(train)))
    return LabeledData(train, train_config, files, held_out, held_out_config, tuple(classes))


def check_generator(model: LatentVideoGenerator, classes: Sequence[str]) -> None:
    """Check that a generator is conditional on the given classes.

    Raises:
        ValueError: If it is unconditional or has a different number of classes.
    """
    if model.head.null_label is None:
        raise ValueError(
            'the generator is unconditional (model.head.num_classes=None); class accuracy needs a conditional one'
        )
    if model.head.null_label != len(classes):
        raise ValueError(
            f'the generator has {model.head.null_label} classes but the dataset has {len(classes)} '
            f'({", ".join(classes[:8])}); use the dataset that the generator was trained on'
        )


def real_clips(data: LabeledData, num: int, batch_size: int) -> Iterator[tuple[Tensor, list[int]]]:
    """Yield batches of at most ``num`` random held-out clips ``(N, 3, T, H, W)`` with their labels.

    Clips that replace an unreadable file are skipped; the log reports how many.
    """
    order = numpy_rng('held-out').permutation(len(data.held_out))[:num].tolist()
    clips = readable_clips('held-out clips', data.held_out, order)
    while batch := [sample for _, sample in itertools.islice(clips, batch_size)]:
        labels = [sample['data_samples'].get('label') for sample in batch]
        check_labels(labels, len(data.classes))
        yield torch.stack([sample['inputs'] for sample in batch]).float().div_(127.5).sub_(1.0), labels


def reconstruct(vae: nn.Module, video: Tensor) -> Tensor:
    """Encode and decode clips ``(N, 3, T, H, W)`` in [-1, 1]."""
    device = next(vae.parameters()).device
    with torch.no_grad():
        return vae.decode(vae.encode(video.to(device)).mode()).float().clamp(-1, 1)


def reconstructions(vae: nn.Module, clips: LabeledBatches) -> Iterator[tuple[Tensor, Sequence[int]]]:
    """Yield the given batches, encoded and decoded."""
    for video, labels in clips:
        yield reconstruct(vae, video), labels


def generated_clips(
    model: LatentVideoGenerator, num: int, clip_shape: Sequence[int], **options: Any
) -> Iterator[tuple[Tensor, list[int]]]:
    """Yield generated clips with their requested class, cycling through the classes.

    Args:
        model: The generator.
        num: Number of clips.
        clip_shape: ``(T, H, W)``.
        **options: Arguments of :meth:`LatentVideoGenerator.generate`.
    """
    asked = [i % model.head.null_label for i in range(num)]
    frames, height, width = clip_shape
    bar = ProgressBar(num, file=sys.stderr)
    for i, video in model.generate(num, frames, (height, width), labels=asked, **options):
        yield video[None], [asked[i]]
        bar.update()
    print(file=sys.stderr)


@torch.no_grad()
def judge(classifier: nn.Module, clips: LabeledBatches, num_classes: int) -> np.ndarray:
    """Return a classifier's confusion counts ``(num_classes, num_classes)``, see :func:`confusion_counts`."""
    device = next(classifier.parameters()).device
    labels: list[int] = []
    guesses: list[int] = []
    for video, classes in clips:
        labels += classes
        guesses += classifier(video.to(device)).argmax(1).tolist()
    return confusion_counts(labels, guesses, num_classes)


def summarize(counts: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Compute the accuracy with its 95 % confidence interval, and the accuracy per class, from confusion counts."""
    hits, num = int(counts.trace()), int(counts.sum())
    return {
        'accuracy': hits / num,
        'interval_95': wilson_interval(hits, num),
        'num': num,
        'per_class': {
            name: int(counts[c, c]) / int(counts[c].sum()) for c, name in enumerate(classes) if counts[c].sum()
        },
        'confusion': counts.tolist(),
    }


@METRICS.register_module()
class ClassAccuracy(BaseMetric):
    """Share of clips that a classifier assigns to their class (ours).

    Reads ``label`` and ``generated`` (or else ``reconstruction``) from each sample. The same classifier can evaluate
    many VAEs and generators. The accuracy on a VAE's reconstructions limits that of generators with this VAE.

    Results, with the prefix ``class``:
        - ``accuracy``: share of clips classified correctly.
        - ``accuracy_low``, ``accuracy_high``: 95 % confidence interval (Wilson); covers only the sampling of clips.

    Clips that replace an unreadable file (``substituted_path``) are skipped; the log reports how many.

    Args:
        classifier: File written by ``tools/analysis/train_classifier.py``.
        collect_device: See mmengine's ``BaseMetric``.
        prefix: See mmengine's ``BaseMetric``.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is damaged or not a classifier.

    Example:
        >>> from pathlib import Path
        >>> from pvvae_plugin.evaluation.motion_classifier import MotionClassifier, save_classifier
        >>> from pvvae_plugin.registry import METRICS
        >>> classifier = MotionClassifier(num_classes=3)  # tools/analysis/train_classifier.py trains one
        >>> save_classifier(classifier, Path('classifier.pth'), digest='')
        >>> metric = METRICS.build(dict(type='ClassAccuracy', classifier='classifier.pth'))
        >>> metric.compute_metrics([True, True, False, False])['accuracy']  # one entry per clip
        0.5
    """

    default_prefix = 'class'
    fields = ('generated or reconstruction',)  # read from every sample

    def __init__(self, classifier: str | os.PathLike, collect_device: str = 'cpu', prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.classifier = load_classifier(Path(classifier)).requires_grad_(False)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Append one entry per sample: True if it was classified correctly, or :data:`SUBSTITUTED`.

        Raises:
            ValueError: If a clip has no label, a label outside the classifier's range, or values that are not finite.
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
            if not clip.isfinite().all():
                raise ValueError('a clip has values that are not finite; check the model that made it')
            with torch.no_grad():
                guess = self.classifier(clip[None].to(device).float().clamp(-1, 1)).argmax().item()
            self.results.append(guess == label)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the accuracy and its confidence interval.

        Args:
            results: One entry per clip; :data:`SUBSTITUTED` marks a clip that replaced an unreadable one.
        """
        judged = readable_results('ClassAccuracy', results)
        if not judged:
            return {}
        low, high = wilson_interval(sum(judged), len(judged))
        return {'accuracy': sum(judged) / len(judged), 'accuracy_low': low, 'accuracy_high': high}
