"""Distance between latent frames of a clip as a function of their time interval."""

from __future__ import annotations

import torch
from torch import Tensor


def latent_temporal_distances(latents: Tensor) -> Tensor:
    """Return the Latent Temporal Distance: mean L2 distance between latent frames per interval (paper, analysis).

    The norm is taken over channels at each position, then averaged over positions and pairs of frames. This is ours;
    the paper does not state the axes of its norm.

    Args:
        latents: ``(C, t, h, w)`` with ``t`` at least 2.

    Returns:
        ``(t - 1,)``, float64; entry ``i`` is the mean over the ``t - 1 - i`` pairs at interval ``i + 1``.

    Raises:
        ValueError: If there are fewer than two latent frames.

    Example:
        >>> from pvvae_plugin.functional.latent_distance import latent_temporal_distances
        >>> latents = torch.arange(4.0).view(1, 4, 1, 1)  # one channel that rises by 1 per latent frame
        >>> latent_temporal_distances(latents)
        tensor([1., 2., 3.], dtype=torch.float64)
    """
    if latents.dim() != 4 or latents.shape[1] < 2:
        raise ValueError(f'latents must be (C, t, h, w) with t at least 2, got {tuple(latents.shape)}')
    latents = latents.double()
    length = latents.shape[1]
    return torch.stack(
        [
            torch.linalg.vector_norm(latents[:, step:] - latents[:, : length - step], dim=0).mean()
            for step in range(1, length)
        ]
    )


def channel_sums(latents: Tensor) -> tuple[int, Tensor, Tensor]:
    """Return the number of values per channel, their sums and their sums of squares (both ``(C,)``, float64).

    Add them up over clips and pass the totals to :func:`latent_scale`.

    Args:
        latents: ``(C, t, h, w)``.

    Example:
        >>> from pvvae_plugin.functional.latent_distance import channel_sums
        >>> count, sums, squares = channel_sums(torch.tensor([1.0, 3.0]).view(1, 2, 1, 1))
        >>> count, sums.item(), squares.item()
        (2, 4.0, 10.0)
    """
    values = latents.double().flatten(1)
    return values.shape[1], values.sum(dim=1), values.square().sum(dim=1)


def latent_scale(count: int, sums: Tensor, squares: Tensor) -> Tensor:
    """Return the root-mean-square distance of two independent latents, a scalar (ours).

    It equals ``sqrt(2 * sum of channel variances)``. Latent distances divided by it are comparable between VAEs with
    different latent scales.

    Args:
        count: Number of values per channel.
        sums: Sums per channel, ``(C,)``.
        squares: Sums of squares per channel, ``(C,)``.

    Example:
        >>> from pvvae_plugin.functional.latent_distance import channel_sums, latent_scale
        >>> latents = torch.tensor([-1.0, 1.0]).expand(2, 2).reshape(2, 2, 1, 1)  # two channels of variance 1
        >>> latent_scale(*channel_sums(latents))
        tensor(2., dtype=torch.float64)
    """
    variances = squares / count - (sums / count).square()
    return (2 * variances.clamp(min=0).sum()).sqrt()
