"""Linear probe of features: closed-form ridge regression with the penalty selected on held-out clips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

PENALTIES = tuple(10.0**power for power in range(-4, 3))  # relative to a mean squared error, for standardized features


class Probe(NamedTuple):
    """Fitted linear map.

    Attributes:
        weight: ``(D, K)``, for features that are not standardized.
        bias: ``(K,)``.
        penalty: Selected penalty.

    Example:
        >>> from pvvae_plugin.functional.linear_probe import Probe
        >>> probe = Probe(weight=torch.tensor([[2.0]]).double(), bias=torch.tensor([1.0]).double(), penalty=1e-4)
        >>> probe(torch.tensor([[3.0]]))
        tensor([[7.]], dtype=torch.float64)
    """

    weight: Tensor
    bias: Tensor
    penalty: float

    def __call__(self, features: Tensor) -> Tensor:
        """Map features ``(N, D)`` to predictions ``(N, K)``, float64."""
        return features.double() @ self.weight + self.bias


def fit_probe(
    features: Tensor,
    targets: Tensor,
    apart: tuple[Tensor, Tensor],
    penalties: Sequence[float] = PENALTIES,
) -> Probe:
    """Fit ``targets`` by ridge regression (ours).

    Minimizes ``|Y - X W|^2 / N + penalty |W|^2`` in float64, on features standardized to mean 0 and standard deviation
    1. The penalty with the smallest squared error on ``apart`` is selected.

    Args:
        features: ``(N, D)``.
        targets: ``(N, K)``.
        apart: Held-out features ``(M, D)`` and targets ``(M, K)`` for selecting the penalty.
        penalties: Candidate penalties.

    Raises:
        ValueError: If there are fewer than two rows, or features and targets have different numbers of rows.

    Example:
        >>> from pvvae_plugin.functional.linear_probe import explained_variance, fit_probe
        >>> features = torch.linspace(-1, 1, 10)[:, None]
        >>> probe = fit_probe(features, 2 * features + 1, apart=(features, 2 * features + 1))
        >>> probe.penalty, round(explained_variance(probe(features), 2 * features + 1), 4)
        (0.0001, 1.0)
    """
    for x, y in ((features, targets), apart):
        if x.dim() != 2 or y.dim() != 2 or len(x) != len(y) or len(x) < 2:
            raise ValueError(
                f'a probe needs features (N, D) and targets (N, K), N at least 2, got {tuple(x.shape)} and '
                f'{tuple(y.shape)}'
            )
    x, y = features.double(), targets.double()
    mean, offset = x.mean(dim=0), y.mean(dim=0)
    scale = x.std(dim=0, correction=0)
    scale = torch.where(scale > 0, scale, 1.0)  # constant features carry no information
    x = (x - mean) / scale
    # All penalties share one decomposition.
    values, vectors = torch.linalg.eigh(x.mT @ x / len(x))
    rotated = vectors.mT @ (x.mT @ (y - offset) / len(x))
    best: tuple[float, Probe] | None = None
    for penalty in penalties:
        weight = (vectors @ (rotated / (values.clamp(min=0) + penalty)[:, None])) / scale[:, None]
        probe = Probe(weight, offset - mean @ weight, float(penalty))
        error = (probe(apart[0]) - apart[1].double()).square().mean().item()
        if best is None or error < best[0]:
            best = error, probe
    return best[1]


def explained_variance(predictions: Tensor, targets: Tensor) -> float:
    """Return the explained variance of the targets: 1 for perfect predictions, 0 for predicting the mean.

    Squared errors and variances are summed over all ``K`` targets.

    Args:
        predictions: ``(N, K)``.
        targets: ``(N, K)``.

    Returns:
        At most 1; NaN if the targets are constant.

    Example:
        >>> from pvvae_plugin.functional.linear_probe import explained_variance
        >>> targets = torch.tensor([[1.0], [2.0], [3.0]])
        >>> explained_variance(targets, targets), explained_variance(torch.full((3, 1), 2.0), targets)
        (1.0, 0.0)
    """
    targets = targets.double()
    error = (predictions.double() - targets).square().sum()
    total = (targets - targets.mean(dim=0)).square().sum()
    return (1 - error / total).item() if total > 0 else float('nan')
