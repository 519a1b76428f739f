"""Inception Score: confidence of a classifier per sample, and diversity of the samples."""

from __future__ import annotations

import torch
from torch import Tensor


def inception_scores(probabilities: Tensor, num_splits: int = 10) -> Tensor:
    """Return the Inception Score ``exp(E[KL(p(y | x) || p(y))])`` per split (Salimans et al. 2016).

    Split ``i`` of ``S`` holds samples ``i N // S`` to ``(i + 1) N // S``, in the given order, as in the original.

    Args:
        probabilities: Class probabilities per sample, ``(N, K)``.
        num_splits: Number of splits ``S``.

    Returns:
        ``(S,)``, float64, each from 1 to ``K``. Papers report the mean and standard deviation.

    Raises:
        ValueError: If there are fewer samples than splits, or rows are not probabilities.

    Example:
        >>> from pvvae_plugin.functional.inception_score import inception_scores
        >>> round(inception_scores(torch.eye(5), num_splits=1).item(), 6)  # always certain, 5 equally frequent classes
        5.0
        >>> round(inception_scores(torch.full((5, 5), 0.2), num_splits=1).item(), 6)  # same prediction for each sample
        1.0
    """
    if probabilities.dim() != 2 or not 1 <= num_splits <= len(probabilities):
        raise ValueError(
            f'probabilities must be (N, K) with N at least the number of splits, {num_splits}; got '
            f'{tuple(probabilities.shape)}'
        )
    probabilities = probabilities.double()
    if not (probabilities.isfinite().all() and (probabilities >= 0).all()):
        raise ValueError('class probabilities must be finite and not negative; apply softmax to logits first')
    sums = probabilities.sum(dim=1)
    if (sums - 1).abs().max() > 1e-3:
        raise ValueError(f'class probabilities must add up to 1, got sums from {sums.min():g} to {sums.max():g}')
    n = len(probabilities)
    scores = []
    for i in range(num_splits):
        part = probabilities[i * n // num_splits : (i + 1) * n // num_splits]  # (N / S, K)
        marginal = part.mean(dim=0)
        divergence = torch.xlogy(part, part) - torch.xlogy(part, marginal)  # 0 log 0 = 0 in both terms
        scores.append(divergence.sum(dim=1).mean().exp())
    return torch.stack(scores)
