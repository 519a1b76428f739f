"""Fréchet distance between Gaussians, with leave-one-group-out values for a jackknife."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .moments import Moments, covariance, merge_all


def frechet_distance(a: Moments, b: Moments, ddof: int = 0) -> Tensor:
    """Return the squared 2-Wasserstein distance of the Gaussians with these moments (Dowson and Landau 1982).

    ``|mean_a - mean_b|^2 + tr(A) + tr(B) - 2 tr((A^1/2 B A^1/2)^1/2)``. The last trace is the sum of the singular
    values of ``A^1/2 B^1/2``, with eigendecompositions of symmetric matrices in float64. It is defined for all
    covariances, including rank-deficient ones, and more accurate than a root of their product. If there are fewer
    samples than features, everything is computed in the span of the samples.

    Args:
        a: Moments of the first set.
        b: Moments of the second set, with the same feature size.
        ddof: Covariances divide by ``N - ddof``.

    Returns:
        Scalar, float64, never negative.

    Raises:
        ValueError: If a set has ``ddof`` samples or fewer, or the feature sizes differ.

    Example:
        >>> from pvvae_plugin.functional.frechet import frechet_distance
        >>> from pvvae_plugin.functional.moments import Moments
        >>> identity = torch.eye(2, dtype=torch.float64)
        >>> a = Moments(count=100, mean=torch.zeros(2).double(), scatter=100 * identity)
        >>> b = Moments(count=100, mean=torch.tensor([3.0, 4.0]).double(), scatter=400 * identity)
        >>> round(frechet_distance(a, b).item(), 6)  # |mean|^2 = 25, and (2 - 1)^2 in each of 2 dimensions
        27.0
    """
    _check_lengths(a, b)
    (a,), (b,) = _within_span([a], [b])
    cov_a, cov_b = covariance(a, ddof), covariance(b, ddof)
    overlap = torch.linalg.svdvals(_root(cov_a) @ _root(cov_b)).sum()
    return _combine(a, b, cov_a, cov_b, overlap)


def frechet_without_groups(
    groups_a: Sequence[Moments], groups_b: Sequence[Moments], ddof: int = 0, paired: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Return leave-one-group-out distances for a jackknife.

    The trace comes from the eigenvalues of ``R A R``, where ``R`` is the root of the complete side. This needs one
    decomposition per distance and is less accurate than :func:`frechet_distance`, by about 1e-7 of the traces. If there
    are fewer samples than features, everything is computed in the span of the samples.

    Args:
        groups_a: Moments of at least 2 disjoint groups of the first set.
        groups_b: Moments of the groups of the second set.
        ddof: Covariances divide by ``N - ddof``.
        paired: Omit group ``i`` of both sets at once. If False, omit groups of ``a`` with the whole ``b``, then groups
            of ``b`` with the whole ``a``.

    Returns:
        ``(G_a,)`` and ``(G_b,)``, float64; with ``paired`` ``(G,)`` and None.

    Raises:
        ValueError: If a set has fewer than 2 groups, or paired sets have different numbers of groups.

    Example:
        >>> from pvvae_plugin.functional.frechet import frechet_without_groups
        >>> from pvvae_plugin.functional.moments import moments
        >>> real = [moments(torch.tensor([[0.0], [2.0]])), moments(torch.tensor([[0.0], [2.0]]))]
        >>> generated = [of._replace(mean=of.mean + 3) for of in real]
        >>> without_generated, without_real = frechet_without_groups(generated, real)
        >>> without_generated.round(decimals=6)  # 3^2, whichever group is omitted
        tensor([9., 9.], dtype=torch.float64)
    """
    if min(len(groups_a), len(groups_b)) < 2:
        raise ValueError(f'each set needs at least 2 groups, got {len(groups_a)} and {len(groups_b)}')
    groups_a, groups_b = _within_span(groups_a, groups_b)
    rest_a, rest_b = _rests(groups_a), _rests(groups_b)
    if paired:
        if len(rest_a) != len(rest_b):
            raise ValueError(f'paired sets need equal numbers of groups, got {len(rest_a)} and {len(rest_b)}')
        pairs = zip(rest_a, rest_b, strict=True)
        return torch.stack([_quick_distance(a, b, _root(covariance(b, ddof)), ddof) for a, b in pairs]), None
    whole_a, whole_b = merge_all(groups_a), merge_all(groups_b)
    root_a, root_b = _root(covariance(whole_a, ddof)), _root(covariance(whole_b, ddof))
    return (
        torch.stack([_quick_distance(a, whole_b, root_b, ddof) for a in rest_a]),
        torch.stack([_quick_distance(b, whole_a, root_a, ddof) for b in rest_b]),
    )


def _within_span(
    groups_a: Sequence[Moments], groups_b: Sequence[Moments]
) -> tuple[Sequence[Moments], Sequence[Moments]]:
    """Project the moments to the span of all samples if it has fewer dimensions than the features.

    Distances do not change, and the time of a decomposition grows with the third power of the dimension.
    """
    pooled = merge_all([*groups_a, *groups_b])
    dim, rank = len(pooled.mean), pooled.count - 1
    if rank >= dim:
        return groups_a, groups_b
    # The products of the scatter with as many random vectors as its rank span its range.
    rng = torch.Generator().manual_seed(0)
    vectors = torch.randn(dim, rank, generator=rng, dtype=torch.float64).to(pooled.scatter.device)
    basis = torch.linalg.qr(pooled.scatter @ vectors).Q  # (D, N - 1)
    if not torch.allclose((basis.T @ pooled.scatter @ basis).trace(), pooled.scatter.trace(), rtol=1e-9):
        return groups_a, groups_b  # moments that do not come from samples, e.g. a known covariance

    def project(of: Moments) -> Moments:
        return Moments(of.count, (of.mean - pooled.mean) @ basis, basis.T @ of.scatter @ basis)

    return [project(of) for of in groups_a], [project(of) for of in groups_b]


def _rests(groups: Sequence[Moments]) -> list[Moments]:
    """Merge all groups but one, for each group. Subtracting one from the total would suffer from cancellation."""
    return [merge_all([*groups[:i], *groups[i + 1 :]]) for i in range(len(groups))]


def _quick_distance(a: Moments, b: Moments, root_b: Tensor, ddof: int) -> Tensor:
    cov_a, cov_b = covariance(a, ddof), covariance(b, ddof)
    product = root_b @ cov_a @ root_b
    overlap = torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0).sqrt().sum()
    return _combine(a, b, cov_a, cov_b, overlap)


def _combine(a: Moments, b: Moments, cov_a: Tensor, cov_b: Tensor, overlap: Tensor) -> Tensor:
    distance = (a.mean - b.mean).square().sum() + cov_a.trace() + cov_b.trace() - 2 * overlap
    return distance.clamp(min=0)  # rounding errors can make it negative


def _root(matrix: Tensor) -> Tensor:
    """Return the square root of a symmetric positive semidefinite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def _check_lengths(a: Moments, b: Moments) -> None:
    if a.mean.shape != b.mean.shape:
        raise ValueError(f'feature sizes differ: {len(a.mean)} and {len(b.mean)}')
