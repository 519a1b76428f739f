"""Streaming moments compared with moments of all samples at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pvvae_plugin.functional.moments import covariance, merge_all, merge_moments, moments, no_moments


def samples(n=200, dim=7, offset=0.0):
    generator = torch.Generator().manual_seed(n)
    mixing = torch.randn(dim, dim, generator=generator).double()
    return torch.randn(n, dim, generator=generator).double() @ mixing + offset


@pytest.mark.parametrize('ddof', [0, 1])
def test_covariance_is_numpys(ddof):
    x = samples()
    found = moments(x)
    np.testing.assert_allclose(found.mean, x.numpy().mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(covariance(found, ddof), np.cov(x.numpy(), rowvar=False, ddof=ddof), rtol=1e-11)


def test_batches_of_any_sizes_in_any_order_give_the_moments_of_all():
    x = samples()
    parts = [moments(part) for part in x.split([1, 50, 7, 100, 42])]
    whole = moments(x)
    for order in ([0, 1, 2, 3, 4], [4, 2, 0, 3, 1]):
        merged = merge_all([parts[i] for i in order])
        assert merged.count == 200
        torch.testing.assert_close(merged.mean, whole.mean, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(merged.scatter, whole.scatter, rtol=1e-12, atol=1e-10)


def test_a_large_mean_does_not_swallow_the_variance():
    """The naive formula (sum of squares minus squared sum) would lose all digits here."""
    x = samples(offset=1e8)
    merged = merge_all([moments(part) for part in x.split(33)])
    np.testing.assert_allclose(covariance(merged, 1), np.cov((x - 1e8).numpy(), rowvar=False), rtol=1e-6, atol=1e-6)


def test_nothing_is_neutral():
    x = moments(samples())
    for merged in (merge_moments(no_moments(7), x), merge_moments(x, no_moments(7))):
        assert merged.count == x.count and torch.equal(merged.scatter, x.scatter)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match='2 of 3 features are not finite'):
        moments(torch.tensor([[1.0, 2.0], [float('nan'), 0.0], [0.0, float('inf')]]))
    with pytest.raises(ValueError, match=r'\(N, D\)'):
        moments(torch.zeros(0, 4))
    with pytest.raises(ValueError, match='feature sizes differ: 3 and 4'):
        merge_moments(no_moments(3), no_moments(4))
    with pytest.raises(ValueError, match='more than 1 samples, got 1'):
        covariance(moments(torch.zeros(1, 3)), 1)
