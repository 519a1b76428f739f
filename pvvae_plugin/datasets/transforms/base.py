"""Shared by the transforms: their random numbers, checks of their arguments, and pipelines without some of them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import torch


def rng_of(results: dict) -> np.random.Generator:
    """The sample's generator; outside a dataset, one seeded by torch's global generator and left in ``results``."""
    if 'rng' not in results:
        results['rng'] = np.random.default_rng(int(torch.randint(2**62, ()).item()))
    return results['rng']


def check_probability(name: str, value: float) -> None:
    """Refuse what is no probability.

    Raises:
        ValueError: If ``value`` is outside [0, 1].
    """
    if not 0 <= value <= 1:
        raise ValueError(f'{name} must lie in [0, 1], got {value}')


def without_transforms(config: Any, names: Collection[str]) -> Any:
    """A dataset's config, as plain values, without the transforms of these names, wherever they stand.

    Args:
        config: Of a dataset, also of one around others.
        names: Such as ``'RandomTimeReverse'``, without their scope.
    """
    if isinstance(config, dict):
        return {key: without_transforms(value, names) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [without_transforms(entry, names) for entry in config if _name(entry) not in names]
    return config


def _name(entry: Any) -> str:
    kind = entry.get('type', '') if isinstance(entry, dict) else ''
    return getattr(kind, '__name__', str(kind)).split('.')[-1]
