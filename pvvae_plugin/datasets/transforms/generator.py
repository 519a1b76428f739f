"""Where transforms get their random numbers."""

from __future__ import annotations

import numpy as np
import torch


def generator_of(results: dict) -> np.random.Generator:
    """The sample's generator; outside a data set, one seeded by torch's global generator and left in ``results``."""
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
