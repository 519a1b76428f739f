"""Spearman's correlation compared with naive ranks and numpy's Pearson correlation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pvvae_plugin.functional.rank_correlation import average_ranks, rank_correlation


def counted_ranks(values):
    """Rank by definition: number of smaller values plus half the number of other equal values."""
    return [sum(b < a for b in values) + (sum(b == a for b in values) + 1) / 2 for a in values]


def test_equals_counted_ranks_with_ties():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 8, 60).astype(float), rng.normal(size=60).round(1)
    b += 0.1 * a
    assert average_ranks(torch.from_numpy(a)).tolist() == counted_ranks(a)
    expected = np.corrcoef(counted_ranks(a), counted_ranks(b))[0, 1]
    assert rank_correlation(torch.from_numpy(a), torch.from_numpy(b)) == pytest.approx(expected, abs=1e-12)


def test_any_growth_is_one_and_any_fall_minus_one():
    x = torch.linspace(-2, 3, 50)
    assert rank_correlation(x, x.exp() * 100) == pytest.approx(1)
    assert rank_correlation(x, -(x**3)) == pytest.approx(-1)


def test_without_variation_there_is_none():
    x = torch.arange(5.0)
    assert math.isnan(rank_correlation(x, torch.ones(5))) and math.isnan(rank_correlation(x[:1], x[:1]))
    with pytest.raises(ValueError, match='NaN has no rank'):
        rank_correlation(x, x * torch.nan)
    with pytest.raises(ValueError, match=r'\(5,\) and \(4,\)'):
        rank_correlation(x, x[:4])
