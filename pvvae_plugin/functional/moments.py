"""Mean and covariance of features, accumulated over batches and processes."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Moments(NamedTuple):
    """Number of feature vectors, their mean, and their scatter around it.

    Attributes:
        count: ``N``, may be 0.
        mean: ``(D,)``, float64.
        scatter: Sum of outer products of deviations from the mean, ``(D, D)``, float64.

    Example:
        >>> from pvvae_plugin.functional.moments import moments
        >>> of = moments(torch.tensor([[0.0], [2.0]]))
        >>> of.count, of.mean.item(), of.scatter.item()
        (2, 1.0, 2.0)
    """

    count: int
    mean: Tensor
    scatter: Tensor


def no_moments(dim: int, device: torch.device | str = 'cpu') -> Moments:
    """Return the moments of an empty set of feature vectors of size ``dim``.

    Example:
        >>> from pvvae_plugin.functional.moments import merge_moments, moments, no_moments
        >>> merge_moments(no_moments(dim=1), moments(torch.tensor([[0.0], [2.0]]))).count
        2
    """
    zeros = torch.zeros(dim, dim, dtype=torch.float64, device=device)
    return Moments(0, zeros.new_zeros(dim), zeros)


def moments(features: Tensor) -> Moments:
    """Return the moments of feature vectors ``(N, D)``, computed in float64.

    Raises:
        ValueError: If ``features`` is not a matrix, has no rows, or contains a value that is not finite.

    Example:
        >>> from pvvae_plugin.functional.moments import covariance, moments
        >>> covariance(moments(torch.tensor([[0.0, 0.0], [2.0, 4.0]])), ddof=0)
        tensor([[1., 2.],
                [2., 4.]], dtype=torch.float64)
    """
    if features.dim() != 2 or not len(features):
        raise ValueError(f'features must be a matrix (N, D) with N >= 1, got {tuple(features.shape)}')
    features = features.double()
    if not features.isfinite().all():
        raise ValueError(f'{int((~features.isfinite()).any(dim=1).sum())} of {len(features)} features are not finite')
    mean = features.mean(dim=0)
    deviations = features - mean
    return Moments(len(features), mean, deviations.T @ deviations)


def merge_moments(a: Moments, b: Moments) -> Moments:
    """Merge the moments of two sets without cancellation (Chan, Golub and LeVeque 1979).

    Raises:
        ValueError: If the feature sizes differ.

    Example:
        >>> from pvvae_plugin.functional.moments import merge_moments, moments
        >>> features = torch.tensor([[0.0], [2.0], [7.0]])
        >>> merged = merge_moments(moments(features[:2]), moments(features[2:]))
        >>> torch.allclose(merged.scatter, moments(features).scatter)
        True
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f'feature sizes differ: {len(a.mean)} and {len(b.mean)}')
    count = a.count + b.count
    if not (a.count and b.count):
        return a if a.count else b
    shift = b.mean - a.mean
    mean = a.mean + shift * (b.count / count)
    return Moments(count, mean, a.scatter + b.scatter + torch.outer(shift, shift) * (a.count * b.count / count))


def merge_all(parts: Sequence[Moments]) -> Moments:
    """Merge the moments of a non-empty sequence of sets.

    Example:
        >>> from pvvae_plugin.functional.moments import merge_all, moments
        >>> batches = torch.tensor([[0.0], [2.0], [7.0]]).split(1)
        >>> merge_all([moments(batch) for batch in batches]).mean.item()
        3.0
    """
    return functools.reduce(merge_moments, parts)


def covariance(of: Moments, ddof: int) -> Tensor:
    """Return the covariance matrix ``(D, D)``.

    Args:
        of: Moments of the features.
        ddof: Divide by ``N - ddof``.

    Raises:
        ValueError: If there are ``ddof`` feature vectors or fewer.

    Example:
        >>> from pvvae_plugin.functional.moments import covariance, moments
        >>> of = moments(torch.tensor([[0.0], [2.0]]))
        >>> covariance(of, ddof=0).item(), covariance(of, ddof=1).item()
        (1.0, 2.0)
    """
    if of.count <= ddof:
        raise ValueError(f'a covariance with ddof={ddof} needs more than {ddof} samples, got {of.count}')
    return of.scatter / (of.count - ddof)
