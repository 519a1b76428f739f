"""What metrics over whole sets of clips share: counting each clip once, processes, and results that can be compared."""

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
from .protocols import Protocol, resolve_protocol
from .reference import Reference, shared_reference
from .video_features import VideoFeatures, shared_features

GENERATED, TRUTH, RECONSTRUCTION = 'generated', 'video', 'reconstruction'


class SetMetric(BaseMetric):
    """Base of metrics that are one number of all clips, not a mean over clips.

    A clip counts once: by ``index`` of its sample where there is one, or else by its place in the stream of
    MMEngine's distributed sampler, which pads the last places with clips that were there before. Features of
    metrics with the same extractor, protocol and reference are computed once.

    Subclasses implement :meth:`add`, :meth:`state` and :meth:`measure`.

    Args:
        extractor: Config of a feature extractor, or the extractor itself.
        protocol: Name of a protocol, or ``dict(base=..., ...)``, see :func:`resolve_protocol`.
        reference: Arguments of :class:`Reference`, at least ``dataset``: real clips that generated ones are compared
            with. None compares reconstructions with their own sources.
        collect_device: See mmengine's ``BaseMetric``.
        prefix: See mmengine's ``BaseMetric``.

    Attributes:
        records (dict[str, dict]): Of the last evaluation, name of a number with its prefix -> all that is needed to
            compare it: its interval, floor, counts, protocol, extractor with the hash of its weights, reference, and
            warnings.

    Raises:
        FileNotFoundError: If weights or data are not there.
        ValueError: If an argument does not fit.
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
        self.protocol = resolve_protocol(protocol)
        self.features: VideoFeatures = shared_features(extractor, self.protocol)
        self.reference: Reference | None = None if reference is None else shared_reference(self.features, reference)
        self.records: dict[str, dict] = {}
        self.reset()

    @staticmethod
    def _is_paired(reference: Any) -> bool:
        """Whether each clip is compared with a truth of its own."""
        return reference is None

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields that are read of each sample: what is judged and, where there is no reference, its truth."""
        return (RECONSTRUCTION, TRUTH) if self._is_paired(self.reference) else (GENERATED,)

    def reset(self) -> None:
        """Forget all clips."""
        self._num_seen = 0
        self._left_out: list[int] = []
        self._pending: tuple[list[int], list[Tensor]] | None = None

    def prepare(self, num_frames: int, num_clips: int) -> None:
        """Check the clips to come and make what does not depend on them, before long work. Every process must call it.

        Args:
            num_frames: Of each of the clips to come.
            num_clips: How many will come.

        Raises:
            ValueError: If they are too short or too few.
        """
        self.features.check_frames(num_frames)
        if num_clips < 2:
            raise ValueError(f'{self.label} compares sets, of at least 2 clips: got {num_clips}')
        if self.reference is not None:
            self.reference.get()

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Take the features of a batch of samples; those with ``substituted_path`` are left out."""
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
        """Add the last batch: no padding where another follows, and at the end what lies within ``size``."""
        if self._pending is None:
            return
        indices, features = self._pending
        self._pending = None
        within = [place for place, index in enumerate(indices) if size is None or index < size]
        if within:
            self.add([indices[place] for place in within], [rows[within] for rows in features])

    @abstractmethod
    def add(self, indices: Sequence[int], features: Sequence[Tensor]) -> None:
        """Take clips in.

        Args:
            indices: Which clips, ``N`` of them.
            features: ``(N, D)`` for each of :attr:`fields`.
        """

    @abstractmethod
    def state(self) -> Any:
        """What :meth:`add` has taken in, to be sent to another process."""

    @abstractmethod
    def measure(self, states: Sequence[Any]) -> dict[str, dict[str, Any]]:
        """The numbers, from the states of all processes: name -> record, see :meth:`describe`."""

    def evaluate(self, size: int) -> dict[str, float]:
        """The numbers over all processes.

        Args:
            size: Number of clips; more were padding.

        Returns:
            For each number its value, and under ``NAME_low``, ``NAME_high``, ``NAME_floor`` and ``NAME_unbiased``
            what there is of them. The whole record is in :attr:`records`, and in the log.
        """
        self._settle(size)
        real = None if self.reference is None else self.reference.get()  # of all processes
        self._real = real
        states = all_gather_object(self.state())
        left_out = sum(index < size for part in all_gather_object(self._left_out) for index in part)
        records: list[Any] = [None]
        if get_dist_info()[0] == 0:
            records = [self.measure(states)]
            for record in records[0].values():
                record['left_out'] = left_out
                if left_out:
                    record['warnings'].append(f'{left_out} clips could not be read and are left out')
                for warning in record['warnings']:
                    print_log(f'{record["name"]}: {warning}', logger='current', level=logging.WARNING)
                print_log(summary_line(record), logger='current')
        broadcast_object_list(records)
        self.reset()
        prefix = f'{self.prefix}/' if self.prefix else ''
        self.records = {prefix + name: record for name, record in records[0].items()}
        return {prefix + name: value for record in self.records.values() for name, value in flat(record).items()}

    def compute_metrics(self, results: list) -> dict:
        """Not used: whole sets are merged, not lists of results."""
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
        """The record of a number.

        Args:
            label: What it is called before frames and clips are added, such as ``'FVD'``.
            value: The number.
            num_clips: Clips that were judged.
            without: Its values without one group of clips at a time, see :func:`jackknife`; empty for no interval.
            floor: ``value`` and ``num_samples`` of the same between two sets of real clips.
            lowest: Least possible value.
            extrapolate: Whether the bias of few samples is to be taken off for ``unbiased``.
        """
        if not math.isfinite(value):
            raise FloatingPointError(f'{label} is {value}')
        frames = self.protocol.num_frames
        if self.features.extractor.max_frames:
            frames = min(frames, self.features.extractor.max_frames)
        record: dict[str, Any] = {'name': f'{label}{frames}_{num_clips}', 'value': value, 'num_samples': num_clips}
        if without:
            found = jackknife(torch.tensor(value, dtype=torch.float64), *without)
            error, bias = found.standard_error.item(), found.bias.item()
            record |= {
                'standard_error': error,
                'interval_95': [max(lowest, value - T_95 * error), value + T_95 * error],
                **({'unbiased': value - bias} if extrapolate else {}),
            }
        return {
            **record,
            'floor': None if floor is None else dict(floor),
            'num_real': None if self._real is None else len(self._real.reference),
            'protocol': self.protocol.record(),
            'extractor': self.features.record(),
            'reference': None if self.reference is None else self.reference.record,
            'pvvae_plugin': __version__,
            'warnings': self._warnings(num_clips, has_interval=bool(without)),
        }

    def _warnings(self, num_clips: int, has_interval: bool) -> list[str]:
        """What a reader of the number must know."""
        warnings = []
        wanted, real = self.protocol.num_samples, self._real
        if num_clips != wanted:
            warnings.append(
                f'{num_clips} clips, where the protocol {self.protocol.name!r} takes {wanted}: compare it only with '
                'numbers of as many'
            )
        if real is not None and len(real.reference) != num_clips:
            warnings.append(f'{num_clips} clips beside {len(real.reference)} real ones')
        if real is not None and real.left_out:
            warnings.append(f'{real.left_out} real clips could not be read and are left out')
        weights = self.features.extractor.weights
        if weights is not None and not weights.get('known_as'):
            warnings.append(f'the weights {weights.get("file")} are unknown to us: say where they are from')
        if not has_interval:
            warnings.append(f'no interval: it takes at least {2 * NUM_GROUPS} clips on each side')
        return warnings


def check_distinct(metrics: Sequence[Any]) -> None:
    """Refuse metrics whose numbers would have one name, which MMEngine finds out when all are made.

    Raises:
        ValueError: If there are such.
    """
    names = [
        (metric.prefix, metric.label, metric.protocol.num_frames) for metric in metrics if isinstance(metric, SetMetric)
    ]
    for prefix, label, frames in names:
        if names.count((prefix, label, frames)) > 1:
            raise ValueError(
                f'several metrics give {prefix}/{label} of {frames} frames: tell them apart by their prefix, e.g. '
                "dict(type='FVD', prefix='stylegan-v', ...)"
            )


def flat(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a record, as metrics that can be logged."""
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
    """Format a record in one line.

    Example:
        >>> from pvvae_plugin.evaluation import summary_line
        >>> extractor, protocol = dict(weights=dict(sha256='0123456789abcdef')), dict(name='paper')
        >>> summary_line(dict(name='FVD17_2048', value=123.4, extractor=extractor, protocol=protocol))
        'FVD17_2048 123.4, protocol paper, weights 0123456789ab'
    """
    parts = [f'{record["name"]} {record["value"]:.4g}']
    if 'interval_95' in record:
        low, high = record['interval_95']
        parts.append(f'95 % {low:.4g} to {high:.4g}')
    if record.get('unbiased') is not None:
        parts.append(f'without the bias of few samples {record["unbiased"]:.4g}')
    if record.get('floor'):
        parts.append(
            f'{record["floor"]["what"]} {record["floor"]["value"]:.4g} ({record["floor"]["num_samples"]} clips)'
        )
    weights = record['extractor']['weights'] or {}
    parts.append(f'protocol {record["protocol"]["name"]}, weights {str(weights.get("sha256"))[:12]}')
    return ', '.join(parts)


def halves_or_others(real: Any) -> tuple[Tensor, Tensor] | None:
    """Two disjoint sets of real clips of one size: as many as the reference has, or else halves of it."""
    n = len(real.reference)
    if len(real.others) >= n:
        return real.reference, real.others[:n]
    half = n // 2
    return (real.reference[:half], real.reference[half : 2 * half]) if half >= 2 else None
