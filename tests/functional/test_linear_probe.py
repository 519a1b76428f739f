"""Linear probes compared with explicit least squares, and their argument checks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pvvae_plugin.functional.linear_probe import explained_variance, fit_probe


def data(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw features of very different scales, and targets linear in them plus noise."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 5, generator=generator, dtype=torch.float64) * torch.tensor([1e-3, 1.0, 50.0, 2.0, 1.0]) + 7
    weight = torch.tensor([[900.0, 0.0], [1.0, -2.0], [0.02, 0.01], [0.0, 3.0], [0.5, 0.5]], dtype=torch.float64)
    return x, x @ weight - 4 + 0.1 * torch.randn(n, 2, generator=generator, dtype=torch.float64)


def test_ridge_is_that_of_the_normal_equations():
    x, y = data(200, 0)
    for penalty in (1e-3, 0.5, 20.0):
        probe = fit_probe(x, y, data(50, 1), [penalty])
        # NumPy: ordinary least squares with extra rows for the penalty.
        a, b = x.numpy(), y.numpy()
        z = (a - a.mean(0)) / a.std(0)
        rows = np.concatenate([z, math.sqrt(penalty * len(z)) * np.eye(5)])
        weight = np.linalg.lstsq(rows, np.concatenate([b - b.mean(0), np.zeros((5, 2))]), rcond=None)[0]
        new = data(30, 2)[0]
        expected = (new.numpy() - a.mean(0)) / a.std(0) @ weight + b.mean(0)
        np.testing.assert_allclose(probe(new).numpy(), expected, rtol=1e-8, atol=1e-8)


def test_the_penalty_is_the_best_of_the_clips_apart():
    x, y = data(12, 3)
    noise = torch.randn(12, 40, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    apart = data(200, 5)
    apart = torch.cat([apart[0], torch.randn(200, 40, generator=torch.Generator().manual_seed(6))], 1), apart[1]
    x = torch.cat([x, noise], 1)
    penalties = [1e-4, 1e-2, 1.0, 100.0]
    errors = {p: (fit_probe(x, y, apart, [p])(apart[0]) - apart[1]).square().mean().item() for p in penalties}
    assert fit_probe(x, y, apart, penalties).penalty == min(errors, key=errors.get)


def test_features_that_never_change_tell_nothing():
    x, y = data(60, 7)
    with_constant = torch.cat([x, torch.full((60, 1), 3.0)], dim=1)
    new = data(20, 8)[0]
    probe = fit_probe(with_constant, y, (with_constant, y), [0.1])
    expected = fit_probe(x, y, (x, y), [0.1])(new)
    torch.testing.assert_close(probe(torch.cat([new, torch.full((20, 1), 99.0)], dim=1)), expected)


def test_explained_variance_is_what_is_left_over_variance():
    targets = torch.tensor([[0.0, 1.0], [2.0, 1.0], [4.0, 1.0], [6.0, 1.0]])
    assert explained_variance(targets, targets) == 1
    assert explained_variance(targets.mean(dim=0).expand(4, 2), targets) == pytest.approx(0)
    off = targets + torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [-1.0, 2.0]])
    assert explained_variance(off, targets) == pytest.approx(1 - (4 + 4) / 20)
    assert math.isnan(explained_variance(targets[:, 1:], targets[:, 1:]))


def test_what_does_not_fit_is_refused():
    x, y = data(10, 0)
    for features, targets in ((x[:1], y[:1]), (x, y[:9]), (x[:, 0], y), (x, y[:, 0])):
        with pytest.raises(ValueError, match='a probe needs features'):
            fit_probe(features, targets, (x, y))
