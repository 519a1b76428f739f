"""LatentTemporalDistance over clips, including the latents that a VAE passes to it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pvvae_plugin.evaluation import LatentTemporalDistance
from pvvae_plugin.functional.latent_distance import latent_temporal_distances
from pvvae_plugin.registry import MODELS
from pvvae_plugin.structures import VideoDataSample


def latents(seed, length=4):
    return (1 + seed) * torch.randn(2, length, 3, 3, generator=torch.Generator().manual_seed(seed))


def test_means_spread_and_scale():
    metric = LatentTemporalDistance()
    metric.process(None, [{'latents': latents(i)} for i in range(5)])
    found = metric.evaluate(5)
    per_clip = np.stack([latent_temporal_distances(latents(i)).numpy() for i in range(5)])
    scale = np.sqrt(2 * torch.cat([latents(i).flatten(1) for i in range(5)], 1).double().var(1, unbiased=False).sum())
    for i in range(3):
        assert found[f'ltd/i{i + 1}'] == pytest.approx(per_clip[:, i].mean(), rel=1e-9)
        assert found[f'ltd/relative_i{i + 1}'] == pytest.approx(per_clip[:, i].mean() / scale.item(), rel=1e-6)
    assert found['ltd/i1_std'] == pytest.approx(per_clip[:, 0].std(), rel=1e-9)
    assert found['ltd/i1_p50'] == pytest.approx(np.median(per_clip[:, 0]), rel=1e-9)
    assert found['ltd/per_interval'] == pytest.approx(per_clip.mean(0), abs=1e-4)


def test_relative_distances_do_not_depend_on_the_latents_scale():
    values = []
    for factor in (1.0, 30.0):
        metric = LatentTemporalDistance()
        metric.process(None, [{'latents': factor * latents(i) + 5} for i in range(4)])
        values.append(metric.evaluate(4))
    assert values[0]['ltd/relative_i1'] == pytest.approx(values[1]['ltd/relative_i1'], rel=1e-5)
    assert values[1]['ltd/i1'] == pytest.approx(30 * values[0]['ltd/i1'], rel=1e-5)


def test_single_frames_and_substitutes_are_left_out_and_counted(log_lines):
    metric = LatentTemporalDistance()
    whole = [{'latents': latents(0)}, {'latents': latents(1, length=3)}]
    metric.process(None, [*whole, {'latents': latents(2, length=1)}, {'latents': latents(3), 'substituted_path': 'x'}])
    found = metric.evaluate(4)
    assert found['ltd/i3'] == pytest.approx(latent_temporal_distances(latents(0))[2].item())  # the only clip so long
    assert log_lines[0] == 'LatentTemporalDistance: skipped 1 of 4 clips whose files could not be read'
    assert log_lines[1] == 'LatentTemporalDistance: skipped 1 of 4 clips with a single latent frame'
    alone = LatentTemporalDistance()
    alone.process(None, [{'latents': latents(2, length=1)}])
    assert alone.evaluate(1) == {}


def test_a_vae_hands_out_its_latents(tiny_vae_config):
    model = MODELS.build(
        {'type': 'VideoAutoencoder', 'backbone': tiny_vae_config, 'loss': {'type': 'PredictiveReconLoss'}}
    ).eval()
    video = torch.rand(2, 3, 5, 32, 32) * 2 - 1
    samples = model(video, [VideoDataSample(), VideoDataSample()], mode='predict')
    with torch.no_grad():
        expected = model.backbone.encode(video).mode()
    for sample, of_clip in zip(samples, expected, strict=True):
        torch.testing.assert_close(sample.latents, of_clip)
