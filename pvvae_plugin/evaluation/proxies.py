"""Distances for development on networks that need no download; not comparable with published numbers."""

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
    """Return the extractor configs by their names in results."""
    extractors: dict[str, dict[str, Any]] = {
        'proxy_appearance': {'type': 'EfficientNetLite0', 'input_size': appearance_size},
        'proxy_time': {'type': 'TransNetV2'},
    }
    if classifier is not None:
        extractors['proxy_motion'] = {'type': 'MotionFeatures', 'weights': os.fspath(classifier)}
    return extractors


class _ProxyMetric(BaseMetric):
    """Base class of metrics that compare the features of several networks. See :class:`ProxyFVD` for the arguments."""

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
            f'{type(self).__name__} uses features of small networks; compare its values between runs, not with '
            'published numbers',
            logger='current',
            level=logging.INFO,
        )

    @property
    def fields(self) -> tuple[str, ...]:
        """See :class:`SetMetric`."""
        return self.distances[0].fields

    @property
    def records(self) -> dict[str, dict]:
        """See :class:`SetMetric`."""
        return {name: record for distance in self.distances for name, record in distance.records.items()}

    def check_clip(self, shape: Sequence[int]) -> None:
        """See :meth:`SetMetric.check_clip`."""
        self.distances[0].check_clip(shape)

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
        """Raise NotImplementedError: :meth:`evaluate` merges whole sets instead of lists of results."""
        raise NotImplementedError


@METRICS.register_module()
class ProxyFVD(_ProxyMetric):
    """Fréchet distances for development, on networks whose Python packages include the weights (ours).

    These distances are not FVD and cannot be compared with published numbers. ``docs/evaluate.md`` shows how the first
    two react to distortions. Results are named like those of :class:`FVD`, e.g. ``proxy_time17_256``:
        - ``proxy_appearance``: EfficientNet-Lite0 features, averaged over frames and so independent of their order.
        - ``proxy_time``: changes of TransNetV2's activations between frames.
        - ``proxy_motion``: features of a classifier of the dataset's classes, if ``classifier`` is given.

    Args:
        protocol: See :class:`SetMetric`. These networks ignore ``resize``, ``value_range``, ``batch_norm_eps`` and
            ``inception_splits``.
        reference: See :class:`SetMetric`.
        appearance_size: Side to which frames are resized for EfficientNet-Lite0, which was trained with 224. Smaller
            sizes are faster and lose nothing if the frames are small.
        classifier: Weights written by ``tools/analysis/train_classifier.py`` for this dataset; None skips
            ``proxy_motion``.
        collect_device: See mmengine's ``BaseMetric``.
        prefix: See mmengine's ``BaseMetric``.

    Raises:
        FileNotFoundError: If the classifier does not exist.
        ImportError: If a required package is not installed.

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
    """Kernel distances on the features of :class:`ProxyFVD`, which are computed once if both metrics are used.

    Unbiased for any number of clips. Results are named like those of :class:`KVD`, e.g. ``proxy_time_kernel17_256``.

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
