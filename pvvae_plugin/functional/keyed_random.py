"""Random numbers keyed by what they are for, not drawn from whatever state a process happens to have.

A draw keyed by (seed, epoch, sample, purpose) is the same whatever the number of workers or processes, and after any
resume. The purpose keeps draws for different uses of one sample independent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def derive_key(*parts: int | str) -> int:
    """A 63-bit key from any sequence of ints and strings (BLAKE2b, so nearby parts give unrelated keys)."""
    digest = hashlib.blake2b('\x1f'.join(f'{type(p).__name__[0]}{p}' for p in parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, 'little') >> 1


def numpy_generator(*parts: int | str) -> np.random.Generator:
    """A NumPy generator for the key of ``parts``."""
    return np.random.default_rng(derive_key(*parts))


def torch_generator(*parts: int | str, device: torch.device | str = 'cpu') -> torch.Generator:
    """A torch generator on ``device`` for the key of ``parts``."""
    return torch.Generator(device=device).manual_seed(derive_key(*parts))


def randn_like(x: Tensor, generator: torch.Generator | Sequence[torch.Generator] | None = None) -> Tensor:
    """Standard normal noise of the shape, type and device of ``x``.

    Args:
        x: ``(N, ...)``.
        generator: One generator for the whole batch, or one for each of the ``N`` entries, so that an entry's noise
            does not depend on the rest of its batch.
    """
    if generator is None or isinstance(generator, torch.Generator):
        return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    if len(generator) != x.shape[0]:
        raise ValueError(f'{len(generator)} generators for a batch of {x.shape[0]}')
    return torch.stack([torch.randn(x.shape[1:], generator=g, dtype=x.dtype, device=x.device) for g in generator])
