"""Latent Temporal Distance compared with plain loops and closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from pvvae_plugin.functional.latent_distance import channel_sums, latent_scale, latent_temporal_distances


def test_equals_a_loop_over_pairs_and_positions():
    latents = torch.randn(3, 5, 2, 4, generator=torch.Generator().manual_seed(0))
    found = latent_temporal_distances(latents)
    assert found.shape == (4,)
    for step in range(1, 5):
        distances = [
            math.sqrt(sum((latents[c, a + step, y, x].item() - latents[c, a, y, x].item()) ** 2 for c in range(3)))
            for a in range(5 - step)
            for y in range(2)
            for x in range(4)
        ]
        assert found[step - 1].item() == pytest.approx(sum(distances) / len(distances), rel=1e-6)


def test_grows_evenly_where_latents_move_evenly():
    """z_t = z_0 + t v: the distance at interval i is i |v|."""
    velocity = torch.randn(6, 1, 1, 1, generator=torch.Generator().manual_seed(1)).double()
    latents = torch.randn(6, 1, 3, 3).double() + velocity * torch.arange(5.0).view(1, 5, 1, 1)
    expected = velocity.norm() * torch.arange(1, 5)
    torch.testing.assert_close(latent_temporal_distances(latents), expected, rtol=1e-9, atol=0)


def test_one_latent_frame_has_no_interval():
    with pytest.raises(ValueError, match='t at least 2'):
        latent_temporal_distances(torch.zeros(3, 1, 2, 2))


def test_the_scale_is_the_distance_of_unrelated_latents():
    generator = torch.Generator().manual_seed(2)
    scales = torch.tensor([0.5, 2.0, 1.0]).view(3, 1, 1, 1)
    parts = [torch.randn(3, 4, 20, 20, generator=generator).double() * scales + 7 for _ in range(3)]
    counts, sums, squares = zip(*map(channel_sums, parts), strict=True)
    scale = latent_scale(sum(counts), sum(sums), sum(squares))
    assert scale.item() == pytest.approx(math.sqrt(2 * (0.25 + 4 + 1)), rel=0.03)
    apart = (parts[0] - parts[1]).norm(dim=0).square().mean().sqrt()
    assert scale.item() == pytest.approx(apart.item(), rel=0.05)
