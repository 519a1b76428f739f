"""MMD compared with a double loop over pairs."""

from __future__ import annotations

import pytest
import torch

from pvvae_plugin.functional import kernel_distance
from pvvae_plugin.functional.kernel_distance import kernel_sums, mmd_of_sums, polynomial_mmd


def loop(x, y, degree=3, coef=1.0):
    def k(a, b):
        return (sum(float(p) * float(q) for p, q in zip(a, b, strict=True)) / len(a) + coef) ** degree

    n, m = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    xy = sum(k(a, b) for a in x for b in y) / (n * m)
    return xx + yy - 2 * xy


@pytest.fixture
def sets():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(23, 5, generator=generator), torch.randn(17, 5, generator=generator) + 0.5


@pytest.mark.parametrize('rows', [1024, 4])
def test_equals_the_double_loop(sets, rows, monkeypatch):
    monkeypatch.setattr(kernel_distance, 'ROWS', rows)
    assert polynomial_mmd(*sets).item() == pytest.approx(loop(*sets), rel=1e-9)
    assert polynomial_mmd(*sets, degree=2, coef=0.5).item() == pytest.approx(loop(*sets, 2, 0.5), rel=1e-9)


def test_the_order_of_samples_does_not_matter(sets):
    x, y = sets
    assert polynomial_mmd(x.flip(0), y.roll(3, 0)).item() == pytest.approx(polynomial_mmd(x, y).item(), rel=1e-9)


def test_leaving_out_groups_is_leaving_out_their_samples(sets):
    x, y = sets
    in_x, in_y = torch.arange(len(x)) % 4, torch.arange(len(y)) % 4
    sums = kernel_sums(x, y, in_x, in_y, 4)
    assert mmd_of_sums(sums).item() == pytest.approx(loop(x, y), rel=1e-9)
    assert mmd_of_sums(sums, without_x=1).item() == pytest.approx(loop(x[in_x != 1], y), rel=1e-9)
    assert mmd_of_sums(sums, without_y=2).item() == pytest.approx(loop(x, y[in_y != 2]), rel=1e-9)
    both = loop(x[in_x != 3], y[in_y != 3])
    assert mmd_of_sums(sums, without_x=3, without_y=3).item() == pytest.approx(both, rel=1e-9)


def test_unbiased():
    """The mean over many small draws from the same distribution is 0; a biased estimate would be far above."""
    generator = torch.Generator().manual_seed(1)
    values = torch.stack(
        [
            polynomial_mmd(torch.randn(6, 4, generator=generator), torch.randn(5, 4, generator=generator))
            for _ in range(3000)
        ]
    )
    assert values.mean().abs() < 3 * values.std() / len(values) ** 0.5
    assert (values < 0).any()


def test_what_cannot_be_is_refused(sets):
    with pytest.raises(ValueError, match='at least 2'):
        polynomial_mmd(sets[0][:1], sets[1])
    with pytest.raises(ValueError, match='finite'):
        polynomial_mmd(sets[0] / 0, sets[1])
