"""Kernel Video Distance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pvvae_plugin.functional.jackknife import NUM_GROUPS, group_of
from pvvae_plugin.functional.kernel_distance import kernel_sums, mmd_of_sums, polynomial_mmd
from pvvae_plugin.registry import METRICS

from .set_metric import SetMetric, halves_or_others


class FeatureSetMetric(SetMetric):
    """Base class of metrics that keep the features of every clip."""

    def reset(self) -> None:
        super().reset()
        self._kept: dict[int, list[Tensor]] = {}

    def add(self, indices: Sequence[int], features: Sequence[Tensor]) -> None:
        """Add clips; see :meth:`SetMetric.add`."""
        for place, index in enumerate(indices):
            self._kept[index] = [rows[place] for rows in features]

    def state(self) -> dict[int, list[Tensor]]:
        """Return features by clip index."""
        return self._kept

    def in_order(self, states: Sequence[dict[int, list[Tensor]]]) -> tuple[Tensor, list[Tensor]]:
        """Return the sorted indices ``(N,)`` of all clips and the features ``(N, D)`` per field.

        Raises:
            ValueError: If there are fewer than two clips.
        """
        kept = {index: rows for part in states for index, rows in part.items()}
        if len(kept) < 2:
            raise ValueError(f'{self.label} needs at least 2 clips, got {len(kept)}')
        indices = sorted(kept)
        fields = zip(*(kept[index] for index in indices), strict=True)
        return torch.tensor(indices), [torch.stack(rows) for rows in fields]


class KernelMetric(FeatureSetMetric):
    """Kernel distance of features with kernel ``(x . y / D + 1)^3``, estimated over all clips without subsets."""

    label = ''

    def measure(self, states: Sequence[dict[int, list[Tensor]]]) -> dict[str, dict[str, Any]]:
        """Compute the distance; see :meth:`SetMetric.measure`."""
        indices, (judged, *truth) = self.in_order(states)
        paired = bool(truth)
        real = truth[0] if paired else self._real.reference
        in_judged = group_of(indices)
        in_real = in_judged if paired else group_of(torch.arange(len(real)))
        sums = kernel_sums(judged, real, in_judged, in_real, NUM_GROUPS)
        without: list[Tensor] = []
        if min(len(judged), len(real)) >= 2 * NUM_GROUPS:
            if paired:
                without = [torch.stack([mmd_of_sums(sums, g, g) for g in range(NUM_GROUPS)])]
            else:
                without = [
                    torch.stack([mmd_of_sums(sums, without_x=g) for g in range(NUM_GROUPS)]),
                    torch.stack([mmd_of_sums(sums, without_y=g) for g in range(NUM_GROUPS)]),
                ]
        label = f'r{self.label}' if paired else self.label
        floor = None if paired else self._floor()
        record = self.describe(label, mmd_of_sums(sums).item(), len(judged), without, floor, extrapolate=False)
        return {record['name']: record}

    def _floor(self) -> dict[str, Any] | None:
        sets = halves_or_others(self._real)
        if sets is None:
            return None
        value = polynomial_mmd(*sets).item()
        return {'what': 'real against real', 'value': value, 'num_samples': len(sets[0])}


@METRICS.register_module()
class KVD(KernelMetric):
    """Kernel Video Distance (Unterthiner et al. 2018): unbiased squared MMD of clip features.

    Uses the kernel ``(x . y / D + 1)^3`` and one estimate over all clips, without subsets. Unlike FVD, its expected
    value does not depend on the number of clips; it may be negative if the sets do not differ. Fields and result names
    are those of :class:`FVD`, without ``_unbiased``. See :class:`SetMetric` for the arguments.

    Example:
        >>> from pvvae_plugin.registry import METRICS
        >>> extractor = dict(type='TransNetV2')  # published numbers: I3DTorchScript with protocol='stylegan-v'
        >>> protocol = dict(num_frames=5, num_samples=3)
        >>> metric = METRICS.build(dict(type='KVD', extractor=extractor, protocol=protocol))
        >>> videos = torch.rand(3, 3, 5, 32, 32) * 2 - 1
        >>> metric.process({}, [dict(video=video, reconstruction=-video) for video in videos])
        >>> list(metric.evaluate(size=3))
        ['recon/rKVD5_3']
    """

    label = 'KVD'
