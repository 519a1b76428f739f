"""Helpers of the transforms: random numbers, argument checks, and removing transforms from pipelines."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import torch


def rng_of(results: dict) -> np.random.Generator:
    """Return the sample's random generator. Outside a dataset, create it from torch's global one and store it."""
    if 'rng' not in results:
        results['rng'] = np.random.default_rng(int(torch.randint(2**62, ()).item()))
    return results['rng']


def check_probability(name: str, value: float) -> None:
    """Check that a value is a probability.

    Raises:
        ValueError: If ``value`` is outside [0, 1].
    """
    if not 0 <= value <= 1:
        raise ValueError(f'{name} must be in [0, 1], got {value}')


def without_transforms(config: Any, names: Collection[str]) -> Any:
    """Return a dataset's config, as plain values, without the named transforms at any level.

    Args:
        config: Config of a dataset or a dataset wrapper.
        names: Names of transforms without scope, such as ``'RandomTimeReverse'``.
    """
    if isinstance(config, dict):
        return {key: without_transforms(value, names) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [without_transforms(entry, names) for entry in config if _name(entry) not in names]
    return config


def _name(entry: Any) -> str:
    kind = entry.get('type', '') if isinstance(entry, dict) else ''
    return getattr(kind, '__name__', str(kind)).split('.')[-1]
