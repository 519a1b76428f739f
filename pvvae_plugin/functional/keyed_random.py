"""Random number generators seeded by a key instead of global RNG state.

A draw keyed by (seed, epoch, sample, purpose) is the same for any number of workers or processes, and after a resume.
The purpose keeps different draws for the same sample independent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def derive_key(*parts: int | str) -> int:
    """Derive a 63-bit key from a sequence of ints and strings with BLAKE2b. Similar parts give unrelated keys.

    Example:
        >>> from pvvae_plugin.functional.keyed_random import derive_key
        >>> derive_key(0, 'crop', 7) == derive_key(0, 'crop', 7)
        True
        >>> derive_key(0, 'crop', 7) == derive_key(0, 'crop', 8)
        False
    """
    digest = hashlib.blake2b('\x1f'.join(f'{type(p).__name__[0]}{p}' for p in parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, 'little') >> 1


def numpy_rng(*parts: int | str) -> np.random.Generator:
    """Return a NumPy random generator for the key of ``parts``.

    Example:
        >>> from pvvae_plugin.functional.keyed_random import numpy_rng
        >>> bool(numpy_rng(0, 'crop').random() == numpy_rng(0, 'crop').random())
        True
    """
    return np.random.default_rng(derive_key(*parts))


def torch_rng(*parts: int | str, device: torch.device | str = 'cpu') -> torch.Generator:
    """Return a torch random generator on ``device`` for the key of ``parts``.

    Example:
        >>> from pvvae_plugin.functional.keyed_random import torch_rng
        >>> a = torch.randn(3, generator=torch_rng(0, 'noise'))
        >>> torch.equal(a, torch.randn(3, generator=torch_rng(0, 'noise')))
        True
    """
    return torch.Generator(device=device).manual_seed(derive_key(*parts))


def torch_rngs(
    keys: Sequence[int | None], purpose: str, device: torch.device | str = 'cpu'
) -> list[torch.Generator] | None:
    """Return one random generator per key for a purpose; None if any key is missing, as in third-party datasets.

    Example:
        >>> from pvvae_plugin.functional.keyed_random import torch_rngs
        >>> len(torch_rngs([11, 12], 'latents'))
        2
        >>> torch_rngs([11, None], 'latents') is None
        True
    """
    return None if None in keys else [torch_rng(key, purpose, device=device) for key in keys]


def randn_like(x: Tensor, rng: torch.Generator | Sequence[torch.Generator] | None = None) -> Tensor:
    """Draw standard normal noise with the shape, dtype and device of ``x``.

    Args:
        x: ``(N, ...)``.
        rng: One generator for the batch, or one per entry. With one per entry, the noise of an entry does not depend
            on the rest of the batch.

    Example:
        >>> from pvvae_plugin.functional.keyed_random import randn_like, torch_rngs
        >>> whole = randn_like(torch.zeros(2, 3), torch_rngs([11, 12], 'latents'))
        >>> alone = randn_like(torch.zeros(1, 3), torch_rngs([12], 'latents'))
        >>> torch.equal(whole[1], alone[0])  # the batch does not matter
        True
    """
    if rng is None or isinstance(rng, torch.Generator):
        return torch.randn(x.shape, generator=rng, dtype=x.dtype, device=x.device)
    if len(rng) != x.shape[0]:
        raise ValueError(f'rng has {len(rng)} generators for a batch of {x.shape[0]}; pass one, or one per entry')
    return torch.stack([torch.randn(x.shape[1:], generator=g, dtype=x.dtype, device=x.device) for g in rng])
