"""Distances computed by hand, and the correlation on textures that move in one half of the frame."""

from __future__ import annotations

import math
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from pvvae_plugin.evaluation.latent_analysis import (
    ClipChange,
    channel_statistics,
    encode_clip,
    measure_change,
    summarize,
)
from pvvae_plugin.models import DiagonalGaussian
from pvvae_plugin.registry import MODELS


class Sampled:
    """VAE whose latents are pixels: from the last frame of each group, one pixel per quarter of a cell."""

    temporal_ratio, spatial_ratio = 4, 8
    last_layer = SimpleNamespace(device=torch.device('cpu'))

    def pad_sides(self, video):
        return video

    def encode(self, video):
        kept = video[:, :1, ::4]
        latents = torch.cat([kept[..., y::8, x::8] for y in (2, 6) for x in (2, 6)], dim=1)
        return DiagonalGaussian(latents, torch.full_like(latents, -20.0))


def half_moving(step, seed=0, size=96):
    """The right half of a texture moves down by ``step`` in each of 9 frames: ``(1, 3, 9, H, W)`` in [-1, 1]."""
    texture = np.random.default_rng(seed).normal(size=(300, size))
    texture = cv2.normalize(cv2.GaussianBlur(texture, (0, 0), 2.5), None, -1, 1, cv2.NORM_MINMAX)
    frames = []
    for t in range(9):
        frame = texture[100 : 100 + size].copy()
        frame[:, size // 2 :] = texture[100 - step * t : 100 - step * t + size, size // 2 :]
        frames.append(frame)
    return torch.from_numpy(np.stack(frames)).float().expand(3, -1, -1, -1)[None]


def change_of(latents, variance=0.0, motion=None, pixels=None):
    latents = torch.tensor(latents, dtype=torch.float32)
    shape = (latents.shape[1] - 1, *latents.shape[2:])
    motion = torch.zeros(shape) if motion is None else torch.tensor(motion).view(shape)
    pixels = torch.zeros(shape) if pixels is None else torch.tensor(pixels).view(shape)
    return ClipChange(latents, torch.full((len(latents),), variance, dtype=torch.float64), motion, pixels)


def test_distances_by_hand():
    """Two channels, three latent frames, one place; the deviations of the channels are 1 and 2 after centring."""
    first = [[[[0.0]], [[0.0]], [[2.0]]], [[[0.0]], [[4.0]], [[4.0]]]]
    second = [[[[2.0]], [[0.0]], [[2.0]]], [[[4.0]], [[0.0]], [[0.0]]]]
    clips = [change_of(first, motion=[1.0, 0.5]), change_of(second, motion=[2.0, 0.7])]
    mean, std = channel_statistics(clips)
    assert mean.tolist() == [1, 2] and std.tolist() == [1, 2]
    record, steps = summarize(clips)
    distances = record['latent_temporal_distance']
    # normalized: first (-1,-1) (-1,1) (1,1); second (1,1) (-1,-1) (1,-1)
    root8 = math.sqrt(8)
    assert steps.tolist() == pytest.approx([2, 2, root8, 2])
    histogram = distances['interval_1_histogram']
    assert histogram['counts'] == [3, *[0] * 48, 1] and len(histogram['edges']) == 51
    assert distances['per_clip'] == [pytest.approx([2, root8]), pytest.approx([(root8 + 2) / 2, 2])]
    assert distances['mean'] == pytest.approx([(2 + (root8 + 2) / 2) / 2, (root8 + 2) / 2])
    assert distances['std_over_clips'] == pytest.approx([(root8 - 2) / 4, (root8 - 2) / 2])
    assert distances['unrelated_latents'] == pytest.approx(2)  # sqrt(2 * (1 + 1))
    assert distances['relative'] == pytest.approx([value / 2 for value in distances['mean']])
    # the longest step is where motion is largest, the other three are equal: ranks 4, 2, 2, 2 against 3, 1, 4, 2
    expected = np.corrcoef([2, 2, 4, 2], [3, 1, 4, 2])[0, 1]
    assert record['correlation']['value'] == pytest.approx(expected)
    assert record['correlation']['num_cells'] == 4
    assert record['correlation']['per_pair'] == [pytest.approx(1), None]
    assert record['correlation']['of_pixels'] is None  # nothing changes there
    assert 'of_frozen_clips' not in distances
    still = [[[[0.0]], [[1.0]], [[0.0]]], [[[0.0]], [[0.0]], [[6.0]]]]  # steps of 1 and (1, 3) in units of deviations
    frozen = [clip._replace(frozen=torch.tensor(still)) for clip in clips]
    found = summarize(frozen)[0]['latent_temporal_distance']
    assert found['of_frozen_clips']['mean'] == pytest.approx([(1 + math.sqrt(10)) / 2, 3])
    assert found['of_frozen_clips']['relative'] == pytest.approx([(1 + math.sqrt(10)) / 4, 1.5])
    assert {name: found[name] for name in distances} == distances
    assert 'of_frozen_clips' not in summarize([clips[0], frozen[1]])[0]['latent_temporal_distance']


def test_the_posteriors_variance_is_part_of_the_deviation():
    clips = [change_of([[[[-1.0]], [[1.0]]]], variance=3.0), change_of([[[[-1.0]], [[1.0]]]], variance=5.0)]
    assert channel_statistics(clips)[1].item() == pytest.approx(math.sqrt(1 + 4))


def test_a_channel_that_never_changes_adds_nothing():
    record, steps = summarize([change_of([[[[1.0]], [[1.0]]], [[[-1.0]], [[1.0]]]])])
    assert steps.tolist() == pytest.approx([2])
    assert record['latent_temporal_distance']['relative'] == pytest.approx([math.sqrt(2)])


def test_change_follows_motion_where_latents_are_pixels_and_not_where_they_are_swapped():
    clips = [encode_clip(Sampled(), half_moving(step, seed)) for seed, step in enumerate((1, 2, -1))]
    changes = [measure_change(clip, 8) for clip in clips]
    for change, step in zip(changes, (1, 2, 1), strict=True):
        assert change.motion.shape == (2, 12, 12)
        assert change.motion[:, 2:-2, :5].max() < 0.1  # still
        np.testing.assert_allclose(change.motion[:, 2:-2, 7:-1], 4 * step, rtol=0.15)  # over four frames
    record, _ = summarize(changes)
    assert record['correlation']['value'] > 0.7 and record['correlation']['of_pixels'] > 0.7
    assert min(record['correlation']['per_clip']) > 0.6
    mirrored = [change._replace(motion=change.motion.flip(-1)) for change in changes]
    assert summarize(mirrored)[0]['correlation']['value'] < -0.4


def test_sides_that_do_not_divide_are_padded(tiny_vae_config):
    vae = MODELS.build(tiny_vae_config).eval()
    video = torch.rand(1, 3, 9, 36, 50) * 2 - 1
    clip = encode_clip(vae, video)
    with torch.no_grad():
        posterior = vae.encode(vae.pad_sides(video))
    torch.testing.assert_close(clip.latents, posterior.mean[0])
    torch.testing.assert_close(clip.posterior_variance, posterior.logvar[0].double().exp().mean((1, 2, 3)))
    assert clip.frames.shape == (3, 36, 50, 3) and clip.flows.shape == (2, 36, 50, 2)
    np.testing.assert_allclose(clip.frames[1], (video[0, :, 4].permute(1, 2, 0).numpy() + 1) * 127.5, atol=0.51)
    assert clip.frozen is None and measure_change(clip, vae.spatial_ratio).frozen is None
    still = torch.cat([video[:, :, :1]] * 9, dim=2)
    frozen = measure_change(encode_clip(vae, video, frozen=True), vae.spatial_ratio).frozen
    torch.testing.assert_close(frozen, encode_clip(vae, still).latents)
    change = measure_change(clip, vae.spatial_ratio)
    assert change.motion.shape == change.pixels.shape == (2, *clip.latents.shape[2:]) == (2, 3, 4)
    expected = np.abs(clip.frames[1, 32:, 48:].astype(float) - clip.frames[0, 32:, 48:]).mean()
    assert change.pixels[0, 2, 3].item() == pytest.approx(expected)
