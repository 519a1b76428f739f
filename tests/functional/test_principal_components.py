"""Principal components compared with numpy's SVD, and stretching with numpy's percentiles."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pvvae_plugin.functional.principal_components import principal_components, stretch


def cloud(n=200, c=6, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, c)) * np.linspace(3, 0.5, c) @ np.linalg.qr(rng.normal(size=(c, c)))[0] + 5


@pytest.mark.parametrize('shape', [(200, 6), (200, 3), (4, 30)])
def test_equals_the_svd(shape):
    x = cloud(*shape)
    u, s, vt = np.linalg.svd(x - x.mean(0), full_matrices=False)
    signs = np.sign([row[np.abs(row).argmax()] for row in vt[:3]])
    found = principal_components(torch.from_numpy(x))
    np.testing.assert_allclose(found.directions, vt[:3] * signs[:, None], atol=1e-9)
    np.testing.assert_allclose(found.scores, u[:, :3] * s[:3] * signs, atol=1e-8)
    np.testing.assert_allclose(found.shares, s[:3] ** 2 / (s**2).sum(), atol=1e-12)


def test_the_same_vectors_give_the_same_signs_whatever_their_order():
    x = torch.from_numpy(cloud())
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    first, second = principal_components(x), principal_components(x[order])
    torch.testing.assert_close(first.scores[order], second.scores)
    assert (first.directions.gather(1, first.directions.abs().argmax(1, keepdim=True)) > 0).all()


def test_components_that_are_not_there_are_zero():
    line = torch.linspace(-1, 1, 9)[:, None] * torch.tensor([3.0, 4.0]) + 1000
    found = principal_components(line)
    torch.testing.assert_close(found.scores[:, 0], 5 * torch.linspace(-1, 1, 9).double(), rtol=0, atol=1e-3)
    assert found.scores.shape == (9, 3) and not found.scores[:, 1:].any() and not found.directions[1:].any()
    assert found.shares.tolist() == [pytest.approx(1), 0, 0]
    still = principal_components(torch.full((5, 4), 0.3))
    assert not still.scores.any() and not still.shares.any()


@pytest.mark.parametrize('vectors', [torch.zeros(3), torch.zeros(0, 3), torch.tensor([[1.0, torch.nan]])])
def test_what_has_no_components(vectors):
    with pytest.raises(ValueError, match='vectors must be'):
        principal_components(vectors)


def test_stretch_by_percentiles():
    values = np.random.default_rng(1).normal(size=(137, 3)) * [1, 10, 0]
    low, high = np.percentile(values, [1, 99], axis=0)
    expected = np.clip((values[:, :2] - low[:2]) / (high - low)[:2], 0, 1)
    found = stretch(torch.from_numpy(values))
    np.testing.assert_allclose(found[:, :2], expected, atol=1e-12)
    assert (found[:, 2] == 0.5).all()
