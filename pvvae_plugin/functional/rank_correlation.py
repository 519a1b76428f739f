"""Spearman's rank correlation, independent of units and of nonlinear monotonic relations."""

from __future__ import annotations

from torch import Tensor


def average_ranks(values: Tensor) -> Tensor:
    """Return ranks from 1, float64; ties get their mean rank.

    Args:
        values: ``(N,)``.

    Example:
        >>> from pvvae_plugin.functional.rank_correlation import average_ranks
        >>> average_ranks(torch.tensor([10.0, 30.0, 10.0]))
        tensor([1.5000, 3.0000, 1.5000], dtype=torch.float64)
    """
    _, inverse, counts = values.unique(return_inverse=True, return_counts=True)  # sorted
    last = counts.cumsum(0).double()
    return (last - (counts.double() - 1) / 2)[inverse]


def rank_correlation(first: Tensor, second: Tensor) -> float:
    """Return Spearman's rank correlation, in [-1, 1]; NaN if either input is constant.

    Args:
        first: ``(N,)``.
        second: ``(N,)``.

    Raises:
        ValueError: If the inputs are not vectors of the same length, or a value is NaN.

    Example:
        >>> from pvvae_plugin.functional.rank_correlation import rank_correlation
        >>> x = torch.tensor([1.0, 2.0, 3.0])
        >>> round(rank_correlation(x, x.exp()), 6), round(rank_correlation(x, -x), 6)
        (1.0, -1.0)
    """
    if first.dim() != 1 or first.shape != second.shape:
        raise ValueError(f'inputs must be vectors of equal length, got {tuple(first.shape)} and {tuple(second.shape)}')
    if first.isnan().any() or second.isnan().any():
        raise ValueError('NaN has no rank')
    if len(first) < 2:
        return float('nan')
    a, b = (ranks - ranks.mean() for ranks in (average_ranks(first), average_ranks(second)))
    scale = a.square().sum().sqrt() * b.square().sum().sqrt()
    return ((a * b).sum() / scale).clamp(-1, 1).item() if scale > 0 else float('nan')
