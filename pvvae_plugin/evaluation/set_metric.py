"""Base class of metrics over whole sets of clips: unique clips, distributed evaluation, and comparable results."""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.dist import all_gather_object, broadcast_object_list, get_dist_info
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from torch import Tensor

from pvvae_plugin import __version__
from pvvae_plugin.functional.jackknife import NUM_GROUPS, T_95, jackknife

from .extractors import FeatureExtractor
from .protocols import OF_REAL_CLIPS, Protocol, resolve_protocol
from .reference import Reference, shared_reference
from .video_features import VideoFeatures, shared_features

GENERATED, TRUTH, RECONSTRUCTION = 'generated', 'video', 'reconstruction'


class SetMetric(BaseMetric):
    """Base class of metrics that measure the set of all clips instead of averaging over clips.

    Each clip counts once. It is identified by the sample's ``index`` or, without one, by its position in the stream of
    MMEngine's distributed sampler, which pads the end with clips that it already used. Metrics with the same extractor,
    protocol and reference share their features.

    Subclasses implement :meth:`add`, :meth:`state` and :meth:`measure`.

    Args:
        extractor: Config of a feature extractor, or the extractor itself.
        protocol: Name of a protocol, or ``dict(base=..., ...)``, see :func:`resolve_protocol`.
        reference: Arguments of :class:`Reference`, at least ``dataset``: the real clips to compare generated clips
            with. None compares reconstructions with their sources.
        collect_device: See mmengine's ``BaseMetric``.
        prefix: See mmengine's ``BaseMetric``.

    Attributes:
        records (dict[str, dict]): Prefixed result name -> record of the last evaluation, with everything needed to
            compare the value: confidence interval, noise floor, counts, protocol, extractor with the hash of its
            weights, reference, and warnings.

    Raises:
        FileNotFoundError: If weights or data do not exist.
        ValueError: If an argument is invalid.
    """

    label = ''

    def __init__(
        self,
        extractor: Mapping | FeatureExtractor,
        protocol: str | Mapping | Protocol = 'paper',
        reference: Mapping[str, Any] | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(
            collect_device=collect_device, prefix=prefix or ('recon' if self._is_paired(reference) else 'gen')
        )
        if self._is_paired(reference) and isinstance(protocol, Mapping):
            _check_paired(protocol)
        self.protocol = resolve_protocol(protocol)
        self.features: VideoFeatures = shared_features(extractor, self.protocol)
        self.reference: Reference | None = None if reference is None else shared_reference(self.features, reference)
        self.records: dict[str, dict] = {}
        self.reset()

    @staticmethod
    def _is_paired(reference: Any) -> bool:
        """Return True if each clip is compared with its own source."""
        return reference is None

    @property
    def fields(self) -> tuple[str, ...]:
        """Sample fields to read: the evaluated clip and, without a reference, its source."""
        return (RECONSTRUCTION, TRUTH) if self._is_paired(self.reference) else (GENERATED,)

    @property
    def result_frames(self) -> int:
        """Number of frames in result names; fewer than the protocol's if the extractor uses fewer."""
        frames = self.protocol.num_frames
        return min(frames, self.features.extractor.max_frames or frames)

    def reset(self) -> None:
        """Forget all clips."""
        self._num_seen = 0
        self._left_out: list[int] = []
        self._pending: tuple[list[int], list[Tensor]] | None = None

    def check_clip(self, shape: Sequence[int]) -> None:
        """Check before training that sources of shape ``(3, T, H, W)`` are long enough; generated clips are unknown.

        Raises:
            ValueError: If the protocol needs longer clips.
        """
        if self._is_paired(self.reference):
            self.features.check_frames(shape[1])

    def prepare(self, num_frames: int, num_clips: int) -> None:
        """Check the upcoming clips and compute the reference features before a long evaluation.

        Every process must call this method.

        Args:
            num_frames: Number of frames per clip.
            num_clips: Number of clips.

        Raises:
            ValueError: If the clips are too short or too few.
        """
        self.features.check_frames(num_frames)
        if num_clips < 2:
            raise ValueError(f'{self.label} needs at least 2 clips, got {num_clips}')
        if self.reference is not None:
            self.reference.get()

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Extract the features of a batch of samples; samples with ``substituted_path`` are skipped."""
        self._settle(size=None)
        rank, world_size = get_dist_info()
        kept, indices = [], []
        for sample in data_samples:
            index = sample.get('index')
            index = self._num_seen * world_size + rank if index is None else int(index)
            self._num_seen += 1
            if sample.get('substituted_path'):
                self._left_out.append(index)
            else:
                kept.append(sample)
                indices.append(index)
        if kept:
            self._pending = indices, [self.features.of_samples(kept, field) for field in self.fields]

    def _settle(self, size: int | None) -> None:
        """Add the pending batch: all clips if more follow, only those with ``index < size`` at the end."""
        if self._pending is None:
            return
        indices, features = self._pending
        self._pending = None
        within = [place for place, index in enumerate(indices) if size is None or index < size]
        if within:
            self.add([indices[place] for place in within], [rows[within] for rows in features])

    @abstractmethod
    def add(self, indices: Sequence[int], features: Sequence[Tensor]) -> None:
        """Add clips.

        Args:
            indices: Indices of the ``N`` clips.
            features: ``(N, D)`` for each of :attr:`fields`.
        """

    @abstractmethod
    def state(self) -> Any:
        """Return all clips added so far, in a form that can be sent to another process."""

    @abstractmethod
    def measure(self, states: Sequence[Any]) -> dict[str, dict[str, Any]]:
        """Compute the results from the states of all processes: name -> record, see :meth:`describe`."""

    def evaluate(self, size: int) -> dict[str, float]:
        """Compute the results over all processes.

        Args:
            size: Number of clips without the sampler's padding.

        Returns:
            ``NAME`` -> value and, if available, ``NAME_low``, ``NAME_high``, ``NAME_floor`` and ``NAME_unbiased``. The
            full records are in :attr:`records`; the log has a summary.

        Raises:
            ValueError: In every process, if the results cannot be computed, e.g. because there are too few clips.
        """
        self._settle(size)
        real = None if self.reference is None else self.reference.get()  # collective call
        self._real = real
        states = all_gather_object(self.state())
        left_out = sum(index < size for part in all_gather_object(self._left_out) for index in part)
        found: list[Any] = [None, None]
        if get_dist_info()[0] == 0:
            try:
                found[0] = self._measure_and_log(states, left_out)
            except Exception as error:  # the other processes must not wait for results that never come
                found[1] = error
        broadcast_object_list(found)
        self.reset()
        records, problem = found
        if problem is not None:
            raise problem
        prefix = f'{self.prefix}/' if self.prefix else ''
        self.records = {prefix + name: record for name, record in records.items()}
        return {prefix + name: value for record in self.records.values() for name, value in flat(record).items()}

    def _measure_and_log(self, states: Sequence[Any], left_out: int) -> dict[str, dict[str, Any]]:
        """Return the results of all processes' states, with the number of skipped clips."""
        records = self.measure(states)
        for record in records.values():
            record['left_out'] = left_out
            if left_out:
                record['warnings'].append(f'{left_out} clips could not be read and were skipped')
            for warning in record['warnings']:
                print_log(f'{record["name"]}: {warning}', logger='current', level=logging.WARNING)
            print_log(summary_line(record), logger='current')
        return records

    def compute_metrics(self, results: list) -> dict:
        """Raise NotImplementedError: :meth:`evaluate` merges whole sets instead of lists of results."""
        raise NotImplementedError

    def describe(
        self,
        label: str,
        value: float,
        num_clips: int,
        without: Sequence[Tensor],
        floor: Mapping[str, Any] | None = None,
        lowest: float = -math.inf,
        extrapolate: bool = True,
    ) -> dict[str, Any]:
        """Build the record of a result.

        Args:
            label: Result name without the numbers of frames and clips, e.g. ``'FVD'``.
            value: Value of the metric.
            num_clips: Number of evaluated clips.
            without: Leave-one-group-out values, see :func:`jackknife`; empty for no confidence interval.
            floor: ``value`` and ``num_samples`` of the noise floor, between two sets of real clips.
            lowest: Lower bound of the metric.
            extrapolate: If True, add ``unbiased``, the value without the bias of a finite number of clips.

        Raises:
            FloatingPointError: If the value is not finite.
        """
        if not math.isfinite(value):
            raise FloatingPointError(f'{label} is {value}, which is not finite; check the clips and the features')
        name = f'{label}{self.result_frames}_{num_clips}'
        record: dict[str, Any] = {'name': name, 'value': value, 'num_samples': num_clips}
        if without:
            found = jackknife(torch.tensor(value, dtype=torch.float64), *without)
            error, bias = found.standard_error.item(), found.bias.item()
            record |= {
                'standard_error': error,
                'interval_95': [max(lowest, value - T_95 * error), value + T_95 * error],
                **({'unbiased': value - bias} if extrapolate else {}),
            }
        unused = OF_REAL_CLIPS if self._is_paired(self.reference) else ()
        return {
            **record,
            'floor': None if floor is None else dict(floor),
            'num_real': None if self._real is None else len(self._real.reference),
            'real_unreadable': [] if self._real is None else self.reference.paths(self._real.skipped),
            'protocol': self.protocol.record() | dict.fromkeys(unused),
            'extractor': self.features.record(),
            'reference': None if self.reference is None else self.reference.record,
            'pvvae_plugin': __version__,
            'warnings': self._warnings(num_clips, has_interval=bool(without)),
        }

    def _warnings(self, num_clips: int, has_interval: bool) -> list[str]:
        """List the reasons why a value may not be comparable."""
        warnings = []
        wanted, real = self.protocol.num_samples, self._real
        if num_clips != wanted:
            warnings.append(
                f'{num_clips} clips, but the protocol {self.protocol.name!r} uses {wanted}; compare only with values '
                f'of {num_clips} clips'
            )
        if real is not None and len(real.reference) != num_clips:
            warnings.append(f'{num_clips} clips are compared with {len(real.reference)} real clips')
        if real is not None and real.left_out:
            warnings.append(f'{real.left_out} real clips could not be read and were skipped')
        weights = self.features.extractor.weights
        if weights is not None and not weights.get('known_as'):
            warnings.append(f'the weights {weights.get("file")} are not a known file; report where they come from')
        if not has_interval:
            warnings.append(f'no confidence interval; it needs at least {2 * NUM_GROUPS} clips in each set')
        return warnings


def check_distinct(metrics: Sequence[Any]) -> None:
    """Check before a long evaluation that no two metrics have the same result name.

    MMEngine detects duplicates only after it has computed all metrics.

    Raises:
        ValueError: If two metrics have the same result name.
    """
    parts = [part for metric in metrics for part in getattr(metric, 'distances', [metric])]
    names = [(part.prefix, part.label, part.result_frames) for part in parts if isinstance(part, SetMetric)]
    for prefix, label, frames in names:
        if names.count((prefix, label, frames)) > 1:
            raise ValueError(
                f'several metrics have the name {prefix}/{label} for {frames} frames; give each its own prefix, e.g. '
                "dict(type='FVD', prefix='stylegan-v', ...)"
            )


def _check_paired(protocol: Mapping[str, Any]) -> None:
    """Check that a custom protocol does not set what only selects the clips of a reference."""
    if unused := [f'{name}={protocol[name]!r}' for name in OF_REAL_CLIPS if name in protocol]:
        raise ValueError(
            f'protocol.{", ".join(unused)} selects the real clips of a reference, but without a reference, each '
            'reconstruction is compared with its own source; remove it, and select the clips in the dataset'
        )


def flat(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a record as metrics that can be logged."""
    name = record['name']
    numbers = {name: record['value']}
    if 'interval_95' in record:
        numbers[f'{name}_low'], numbers[f'{name}_high'] = record['interval_95']
    if record.get('unbiased') is not None:
        numbers[f'{name}_unbiased'] = record['unbiased']
    if record.get('floor'):
        numbers[f'{name}_floor'] = record['floor']['value']
    return numbers


def summary_line(record: Mapping[str, Any]) -> str:
    """Format a record as one line of text.

    Example:
        >>> from pvvae_plugin.evaluation import summary_line
        >>> extractor, protocol = dict(weights=dict(sha256='0123456789abcdef')), dict(name='paper')
        >>> summary_line(dict(name='FVD17_2048', value=123.4, extractor=extractor, protocol=protocol))
        'FVD17_2048 123.4, protocol paper, weights 0123456789ab'
    """
    parts = [f'{record["name"]} {record["value"]:.4g}']
    if 'interval_95' in record:
        low, high = record['interval_95']
        parts.append(f'95 % CI {low:.4g} to {high:.4g}')
    if record.get('unbiased') is not None:
        parts.append(f'unbiased {record["unbiased"]:.4g}')
    if record.get('floor'):
        parts.append(
            f'{record["floor"]["what"]} {record["floor"]["value"]:.4g} ({record["floor"]["num_samples"]} clips)'
        )
    weights = record['extractor']['weights'] or {}
    parts.append(f'protocol {record["protocol"]["name"]}, weights {str(weights.get("sha256"))[:12]}')
    return ', '.join(parts)


def halves_or_others(real: Any) -> tuple[Tensor, Tensor] | None:
    """Return two disjoint, equally large sets of real clips: the reference and others, or halves of the reference."""
    n = len(real.reference)
    if len(real.others) >= n:
        return real.reference, real.others[:n]
    half = n // 2
    return (real.reference[:half], real.reference[half : 2 * half]) if half >= 2 else None
