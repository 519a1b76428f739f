"""Fréchet distance compared with closed forms, and its jackknife compared with repeated draws."""

from __future__ import annotations

import pytest
import torch

from pvvae_plugin.functional.frechet import frechet_distance, frechet_without_groups
from pvvae_plugin.functional.jackknife import NUM_GROUPS, T_95, jackknife
from pvvae_plugin.functional.moments import Moments, merge_all, moments

DIM = 400


def gaussian(mean, cov):
    return Moments(1, mean.double(), cov.double())  # for one sample and ddof=0 the scatter is the covariance


def orthogonal(dim, seed=0):
    return torch.linalg.qr(torch.randn(dim, dim, generator=torch.Generator().manual_seed(seed)).double())[0]


def covariance_with(spectrum, seed=0):
    basis = orthogonal(len(spectrum), seed)
    return (basis * spectrum) @ basis.T


SPECTRUM = 1 / torch.arange(1, DIM + 1).double()


def test_equal_gaussians_are_at_distance_zero():
    a = gaussian(torch.randn(DIM), covariance_with(SPECTRUM))
    assert 0 <= frechet_distance(a, a) < 1e-10 * SPECTRUM.sum()


def test_shifted():
    cov, shift = covariance_with(SPECTRUM), torch.randn(DIM, dtype=torch.float64)
    zero = torch.zeros(DIM)
    distance = frechet_distance(gaussian(zero, cov), gaussian(shift, cov))
    assert distance == pytest.approx(shift.square().sum().item(), rel=1e-9)


def test_scaled():
    """Covariances A and s^2 A: tr(A) (1 - s)^2."""
    cov, zero = covariance_with(SPECTRUM), torch.zeros(DIM)
    distance = frechet_distance(gaussian(zero, cov), gaussian(zero, 1.3**2 * cov))
    assert distance == pytest.approx(0.3**2 * SPECTRUM.sum().item(), rel=1e-9)


def test_commuting_covariances():
    """Same eigenvectors, different eigenvalues: the sum of (sqrt a - sqrt b)^2."""
    other = SPECTRUM.flip(0)
    zero = torch.zeros(DIM)
    distance = frechet_distance(gaussian(zero, covariance_with(SPECTRUM)), gaussian(zero, covariance_with(other)))
    assert distance == pytest.approx((SPECTRUM.sqrt() - other.sqrt()).square().sum().item(), rel=1e-6)


def test_one_dimensional():
    a, b = (gaussian(torch.tensor([m]), torch.tensor([[s**2]])) for m, s in ((1.0, 2.0), (4.0, 0.5)))
    assert frechet_distance(a, b).item() == pytest.approx(3.0**2 + 1.5**2, rel=1e-12)


def test_two_dimensional_covariances_that_do_not_commute():
    """tr((A^1/2 B A^1/2)^1/2) of 2 x 2 is sqrt(tr(AB) + 2 sqrt(det(A) det(B)))."""
    a, b = torch.tensor([[2.0, 0.9], [0.9, 0.7]]).double(), torch.tensor([[0.5, -0.3], [-0.3, 3.0]]).double()
    overlap = ((a @ b).trace() + 2 * (a.det() * b.det()).sqrt()).sqrt()
    expected = a.trace() + b.trace() - 2 * overlap
    zero = torch.zeros(2)
    assert frechet_distance(gaussian(zero, a), gaussian(zero, b)).item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize(('num_a', 'num_b'), [(30, 20), (30, 500), (1, 30)])
def test_few_samples_are_computed_in_their_span(num_a, num_b, monkeypatch):
    """Compared with the traces of a general root, computed over all features in float64."""
    generator = torch.Generator().manual_seed(1)
    mixing = covariance_with(SPECTRUM, seed=2)
    x, y = (torch.randn(n, DIM, generator=generator).double() @ mixing for n in (num_a, num_b))
    y = 1.2 * y + 0.1
    sides, decompose = [], torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, 'eigh', lambda m: sides.append(len(m)) or decompose(m))
    found = frechet_distance(moments(x), moments(y))
    monkeypatch.undo()
    a, b = (torch.cov(z.T, correction=0) for z in (x, y))
    overlap = torch.linalg.eigvals(a @ b).real.clamp(min=0).sqrt().sum()
    expected = (x.mean(0) - y.mean(0)).square().sum() + a.trace() + b.trace() - 2 * overlap
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    assert found.item() == pytest.approx(nuclear_norm_distance(x, y).item(), rel=1e-8)
    assert sides == [min(DIM, num_a + num_b - 1)] * 2


def test_rank_deficient_on_separate_subspaces():
    """Disjoint supports: the sum of the traces. The product is zero, so its root would be singular."""
    half = DIM // 2
    first, second = SPECTRUM.clone(), SPECTRUM.clone()
    first[half:], second[:half] = 0, 0
    a, b = (gaussian(torch.zeros(DIM), covariance_with(s)) for s in (first, second))
    assert frechet_distance(a, b).item() == pytest.approx(SPECTRUM.sum().item(), rel=1e-6)


def test_rank_deficient_and_shared():
    rank = torch.where(torch.arange(DIM) < 10, 1.0, 0.0).double()
    a, b = (gaussian(torch.zeros(DIM), s * covariance_with(rank)) for s in (1.0, 4.0))
    assert frechet_distance(a, b).item() == pytest.approx(10.0, rel=1e-6)


def nuclear_norm_distance(x, y):
    """Computed from samples, without covariances: tr((A^1/2 B A^1/2)^1/2) = |X'^T Y'|_* / N of centered rows."""
    mean_x, mean_y = x.mean(0), y.mean(0)
    x, y = (x - mean_x) / len(x) ** 0.5, (y - mean_y) / len(y) ** 0.5
    overlap = torch.linalg.svdvals(x @ y.T).sum()
    return (mean_x - mean_y).square().sum() + x.square().sum() + y.square().sum() - 2 * overlap


def test_fewer_samples_than_features():
    """256 samples with 400 features."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(256, DIM, generator=generator).double() * SPECTRUM.sqrt() for _ in range(2))
    expected = nuclear_norm_distance(x, y)
    assert frechet_distance(moments(x), moments(y)).item() == pytest.approx(expected.item(), rel=1e-6)
    # identical samples, and the same samples permuted
    assert 0 <= frechet_distance(moments(x), moments(x)) < 1e-9
    assert frechet_distance(moments(x.flip(0)), moments(y)).item() == pytest.approx(expected.item(), rel=1e-9)


def test_symmetric_and_never_negative_nor_nan():
    generator = torch.Generator().manual_seed(1)
    for n, dim in ((2, 30), (5, 30), (40, 30)):
        x = torch.randn(n, dim, generator=generator).double()
        near = x + 1e-9 * torch.randn(n, dim, generator=generator)
        for y in (x, near, x * 1e-8, torch.zeros_like(x)):
            forth, back = frechet_distance(moments(x), moments(y)), frechet_distance(moments(y), moments(x))
            assert forth >= 0 and back >= 0
            assert forth.item() == pytest.approx(back.item(), rel=1e-6, abs=1e-7)


def test_ddof_scales_covariances():
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(20, 3, generator=generator).double()
    y = 2 * x - x.mean(0)  # same mean, twice the deviation
    variance = x.var(dim=0, unbiased=True).sum().item()
    assert frechet_distance(moments(x), moments(y), ddof=1).item() == pytest.approx(variance, rel=1e-9)
    assert frechet_distance(moments(x), moments(y), ddof=0).item() == pytest.approx(variance * 19 / 20, rel=1e-9)


def test_lengths_must_agree():
    with pytest.raises(ValueError, match='feature sizes differ: 3 and 4'):
        frechet_distance(moments(torch.zeros(5, 3)), moments(torch.zeros(5, 4)))


def grouped(x):
    return [moments(x[i::NUM_GROUPS]) for i in range(NUM_GROUPS)]


@pytest.mark.parametrize('dim', [8, 119, 120, 300])  # fewer, as many, and more dimensions than the 120 samples span
@pytest.mark.parametrize('paired', [False, True])
def test_leaving_out_groups_is_leaving_out_their_samples(paired, dim):
    generator = torch.Generator().manual_seed(3)
    x, y = (torch.randn(60, dim, generator=generator).double() + shift for shift in (0, 5))
    without_x, without_y = frechet_without_groups(grouped(x), grouped(y), ddof=1, paired=paired)
    for i in range(NUM_GROUPS):
        kept = torch.arange(60) % NUM_GROUPS != i
        other = y[kept] if paired else y
        expected = frechet_distance(moments(x[kept]), moments(other), ddof=1)
        assert without_x[i].item() == pytest.approx(expected.item(), rel=1e-6)
        if not paired:
            expected = frechet_distance(moments(x), moments(y[kept]), ddof=1)
            assert without_y[i].item() == pytest.approx(expected.item(), rel=1e-6)
    assert (without_y is None) == paired


def test_the_interval_covers_and_the_bias_is_found():
    """Repeated draws with a known distance, for which a naive bootstrap is strongly biased."""
    generator = torch.Generator().manual_seed(4)
    truth = 16 * 0.25**2 + 16 * 0.2**2  # shift 0.25 and scale 1.2 in 16 dimensions
    values, errors, biases = [], [], []
    for _ in range(60):
        x = torch.randn(200, 16, generator=generator).double()
        y = torch.randn(200, 16, generator=generator).double() * 1.2 + 0.25
        value = frechet_distance(moments(x), moments(y))
        found = jackknife(value, *frechet_without_groups(grouped(x), grouped(y)))
        values.append(value)
        errors.append(found.standard_error)
        biases.append(found.bias)
    values, errors, biases = map(torch.stack, (values, errors, biases))
    assert values.mean() - truth > 0.3 * truth  # a small number of samples gives a large bias
    assert ((values - biases).mean() - truth).abs() < 0.1 * (values.mean() - truth)
    assert 0.85 < errors.mean() / values.std() < 1.3
    covered = ((values - values.mean()).abs() < T_95 * errors).double().mean()
    assert covered >= 0.9
    covered = ((values - biases - truth).abs() < T_95 * errors).double().mean()
    assert covered >= 0.9


def test_groups_merge_to_the_whole():
    x = torch.randn(57, 5).double()
    torch.testing.assert_close(merge_all(grouped(x)).scatter, moments(x).scatter)
