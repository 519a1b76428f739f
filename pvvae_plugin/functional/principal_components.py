"""Principal components of vectors, and contrast stretching for display."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

ROUNDING = 1e-12  # fraction of the total variance; smaller components are rounding noise


class PrincipalComponents(NamedTuple):
    """Vectors projected onto their directions of largest variance.

    Attributes:
        scores: Centered vectors projected onto each direction, ``(N, num)``, float64.
        directions: Unit vectors in rows, largest variance first, ``(num, C)``; missing directions are 0.
        shares: Fraction of the total variance, ``(num,)``; all 0 if the vectors are equal.

    Example:
        >>> from pvvae_plugin.functional.principal_components import principal_components
        >>> scores, directions, shares = principal_components(torch.randn(10, 4), num=3)
        >>> scores.shape, directions.shape, shares.shape
        (torch.Size([10, 3]), torch.Size([3, 4]), torch.Size([3]))
    """

    scores: Tensor
    directions: Tensor
    shares: Tensor


def principal_components(vectors: Tensor, num: int = 3) -> PrincipalComponents:
    """Compute the first principal components by eigendecomposition of the covariance in float64.

    The sign of a direction is chosen to make its largest entry positive (the first one in a tie), so the result is
    deterministic.

    Args:
        vectors: ``(N, C)``.
        num: Number of components. Components beyond the rank of the vectors are 0.

    Raises:
        ValueError: If ``vectors`` is not a matrix, has no rows, or contains a value that is not finite.

    Example:
        >>> from pvvae_plugin.functional.principal_components import principal_components
        >>> vectors = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> principal_components(vectors, num=2).shares  # 18 and 2 of a variance of 20
        tensor([0.9000, 0.1000], dtype=torch.float64)
    """
    if vectors.dim() != 2 or not vectors.numel() or num < 1:
        raise ValueError(f'vectors must be a matrix (N, C) and num at least 1, got {tuple(vectors.shape)} and {num}')
    if not vectors.isfinite().all():
        raise ValueError('vectors must be finite, got NaN or infinity')
    centered = vectors.double() - vectors.double().mean(dim=0)
    variances, columns = torch.linalg.eigh(centered.T @ centered / len(centered))  # ascending
    variances, rows = variances.flip(0)[:num].clamp(min=0), columns.T.flip(0)[:num]
    total = centered.square().sum() / len(centered)
    # rounding of a large mean also leaves a variance of about (eps * value)^2
    least = max(ROUNDING * total.item(), (torch.finfo(vectors.dtype).eps * vectors.abs().max().item()) ** 2)
    kept = (variances > least).double()
    largest = rows.gather(1, rows.abs().argmax(dim=1, keepdim=True))
    rows = rows * largest.sign() * kept[:, None]
    shares = variances * kept / total if kept.any() else variances * 0
    missing = num - len(rows)
    rows, shares = (torch.cat([part, part.new_zeros(missing, *part.shape[1:])]) for part in (rows, shares))
    return PrincipalComponents(centered @ rows.T, rows, shares)


def stretch(values: Tensor, low: float = 1, high: float = 99) -> Tensor:
    """Map each column to [0, 1]: percentile ``low`` becomes 0, ``high`` becomes 1, and other values are clipped.

    Args:
        values: ``(N, K)``.
        low: Lower percentile, in percent.
        high: Upper percentile, in percent.

    Returns:
        ``(N, K)``, float64; 0.5 in columns whose percentiles are equal.

    Example:
        >>> from pvvae_plugin.functional.principal_components import stretch
        >>> stretch(torch.tensor([[2.0], [3.0], [6.0]]), low=0, high=100).flatten()
        tensor([0.0000, 0.2500, 1.0000], dtype=torch.float64)
    """
    values = values.double()
    # torch.quantile is limited to 16 million values
    ordered = values.sort(dim=0).values
    floor, ceiling = (_percentile(ordered, q) for q in (low, high))
    width = ceiling - floor
    return torch.where(width > 0, (values - floor) / width.where(width > 0, torch.ones_like(width)), 0.5).clamp(0, 1)


def _percentile(ordered: Tensor, q: float) -> Tensor:
    """Return percentile ``q`` of sorted columns with linear interpolation."""
    place = (len(ordered) - 1) * q / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])
