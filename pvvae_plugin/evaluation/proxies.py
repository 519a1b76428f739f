"""Distances on features that need no download, for development: comparable with one another, with nothing published."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from pvvae_plugin.registry import METRICS

from .fvd import FrechetMetric
from .kvd import KernelMetric
from .protocols import Protocol
from .set_metric import SetMetric


def proxy_extractors(appearance_size: int, classifier: str | os.PathLike | None) -> dict[str, dict[str, Any]]:
    """Configs of the networks, by what they are called in results."""
    extractors: dict[str, dict[str, Any]] = {
        'proxy_appearance': {'type': 'EfficientNetLite0', 'input_size': appearance_size},
        'proxy_time': {'type': 'TransNetV2'},
    }
    if classifier is not None:
        extractors['proxy_motion'] = {'type': 'MotionFeatures', 'weights': os.fspath(classifier)}
    return extractors


class _ProxyMetric(BaseMetric):
    """One distance on the features of several networks.

    Args:
        protocol: See :class:`SetMetric`; only its frames, clips and rounding matter here.
        reference: See :class:`SetMetric`.
        appearance_size: Side to which frames are resized for EfficientNet-Lite0.
        classifier: Weights of a classifier of the data at hand (``tools/analysis/train_classifier.py``), for
            ``proxy_motion``; None does without.
        collect_device: See mmengine's ``BaseMetric``.
        prefix: See mmengine's ``BaseMetric``.

    Raises:
        ImportError: If a package is not installed, saying how to.
    """

    distance: type[SetMetric]
    suffix = ''

    def __init__(
        self,
        protocol: str | Mapping | Protocol = 'paper',
        reference: Mapping[str, Any] | None = None,
        appearance_size: int = 224,
        classifier: str | os.PathLike | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        self.distances = []
        for name, extractor in proxy_extractors(appearance_size, classifier).items():
            distance = self.distance(extractor, protocol, reference, prefix=prefix)
            distance.label = name + self.suffix
            self.distances.append(distance)
        super().__init__(collect_device=collect_device, prefix=self.distances[0].prefix)
        print_log(
            f'{type(self).__name__} compares features of small networks: its numbers serve to compare runs with one '
            'another, not with published ones',
            logger='current',
            level=logging.INFO,
        )

    @property
    def records(self) -> dict[str, dict]:
        """See :class:`SetMetric`."""
        return {name: record for distance in self.distances for name, record in distance.records.items()}

    def prepare(self, num_frames: int, num_clips: int) -> None:
        """See :meth:`SetMetric.prepare`."""
        for distance in self.distances:
            distance.prepare(num_frames, num_clips)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """See :meth:`SetMetric.process`."""
        for distance in self.distances:
            distance.process(data_batch, data_samples)

    def evaluate(self, size: int) -> dict[str, float]:
        """See :meth:`SetMetric.evaluate`."""
        return {name: value for distance in self.distances for name, value in distance.evaluate(size).items()}

    def compute_metrics(self, results: list) -> dict:
        """Not used: whole sets are merged, not lists of results."""
        raise NotImplementedError


@METRICS.register_module()
class ProxyFVD(_ProxyMetric):
    """Fréchet distances on features of packages that ship their weights: for development, with nothing downloaded.

    Not FVD, and comparable with no published number: the networks are others. ``proxy_appearance`` is of
    EfficientNet-Lite0's features, averaged over frames and so blind to their order; ``proxy_time`` of how TransNetV2's
    activations change from frame to frame; ``proxy_motion``, where a ``classifier`` is given, of what tells the data's
    own classes apart. ``docs/evaluate.md`` shows what the first two react to.

    Results as those of :class:`FVD`, such as ``proxy_appearance17_256`` and ``proxy_time17_256``.

    Args:
        protocol: See :class:`SetMetric`; only its frames, clips and rounding matter here.
        reference: See :class:`SetMetric`.
        appearance_size: Side to which frames are resized for EfficientNet-Lite0. Of small frames 224 pixels, what it
            was trained with, show no more than fewer do, and take longer.
        classifier: Weights of a classifier of the data at hand, as ``tools/analysis/train_classifier.py`` writes.
        collect_device: See mmengine's ``BaseMetric``.
        prefix: See mmengine's ``BaseMetric``.

    Raises:
        FileNotFoundError: If there is no such classifier.
        ImportError: If a package is not installed, saying how to.

    Example:
        >>> from pvvae_plugin.registry import METRICS
        >>> protocol = dict(num_frames=9, num_samples=256)
        >>> clips = dict(type='SyntheticVideoDataset', length=512, size=32)  # real clips
        >>> metric = METRICS.build(dict(type='ProxyFVD', protocol=protocol, reference=dict(dataset=clips)))
        >>> [distance.label for distance in metric.distances]
        ['proxy_appearance', 'proxy_time']
    """

    distance = FrechetMetric


@METRICS.register_module()
class ProxyKVD(_ProxyMetric):
    """Kernel distances on the features that :class:`ProxyFVD` takes; with both, features are computed once.

    Unbiased at any number of clips. Results as those of :class:`KVD`, such as ``proxy_time_kernel17_256``.

    Args:
        protocol: See :class:`ProxyFVD`.
        reference: See :class:`ProxyFVD`.
        appearance_size: See :class:`ProxyFVD`.
        classifier: See :class:`ProxyFVD`.
        collect_device: See mmengine's ``BaseMetric``.
        prefix: See mmengine's ``BaseMetric``.

    Example:
        >>> from pvvae_plugin.registry import METRICS
        >>> protocol = dict(num_frames=5, num_samples=3)
        >>> metric = METRICS.build(dict(type='ProxyKVD', appearance_size=32, protocol=protocol))
        >>> videos = torch.rand(3, 3, 5, 32, 32) * 2 - 1
        >>> metric.process({}, [dict(video=video, reconstruction=-video) for video in videos])
        >>> list(metric.evaluate(size=3))
        ['recon/rproxy_appearance_kernel5_3', 'recon/rproxy_time_kernel5_3']
    """

    distance = KernelMetric
    suffix = '_kernel'
