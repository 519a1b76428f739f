import math
import types

import pytest
import torch
from mmengine.evaluator import Evaluator
from torch import nn

from pvvae_plugin.evaluation import VideoReconstruction
from pvvae_plugin.functional.image_quality import ssim
from pvvae_plugin.models.losses.lpips import LPIPS
from pvvae_plugin.registry import HOOKS, MODELS


class FakeDistance(nn.Module):
    """Stands in for LPIPS: mean absolute difference of each frame."""

    net = 'fake'

    def forward(self, a, b):
        return (a - b).abs().mean(dim=(1, 3, 4))


@pytest.fixture
def fake_lpips():
    MODELS.register_module(module=FakeDistance)
    yield {'type': 'FakeDistance'}
    for registry in (MODELS, MODELS.parent):
        registry.module_dict.pop('FakeDistance')


def evaluate(metric, samples):
    evaluator = Evaluator(metric)
    evaluator.process(samples)
    return evaluator.evaluate(len(samples))


def psnr_by_hand(sample, t):
    """Of one frame, on the scale of 8-bit images without rounding."""
    truth = (sample.video[:, t].double() + 1) * 127.5
    output = (sample.reconstruction[:, t].double().clamp(-1, 1) + 1) * 127.5
    mse = sum((x - y) ** 2 for x, y in zip(truth.flatten().tolist(), output.flatten().tolist(), strict=True))
    return 10 * math.log10(255**2 / (mse / truth.numel()))


def test_averages_frames_and_keeps_the_curve(make_sample):
    samples = [make_sample(i) for i in range(3)]
    metric = VideoReconstruction()
    metrics = evaluate(metric, samples)
    frames = [[psnr_by_hand(sample, t) for t in range(5)] for sample in samples]
    curve = [sum(clip[t] for clip in frames) / 3 for t in range(5)]
    assert metrics['recon/psnr'] == pytest.approx(sum(curve) / 5, rel=1e-6)
    assert metrics['recon/psnr_first'] == pytest.approx(curve[0], rel=1e-6)
    assert metrics['recon/psnr_worst_frame'] == pytest.approx(min(curve), rel=1e-6)
    assert metric.per_frame['psnr'] == pytest.approx(curve, rel=1e-6)
    assert metrics['recon/psnr_per_frame'] == [round(v, 4) for v in metric.per_frame['psnr']]
    assert 'recon/lpips_fake' not in metrics


def test_ssim_is_that_of_8_bit_images(make_sample):
    sample = make_sample(0)
    as_bytes = [(v.clamp(-1, 1).double()[None] + 1) * 127.5 for v in (sample.video, sample.reconstruction)]
    expected = ssim(*as_bytes, 255.0).mean().item()
    assert evaluate(VideoReconstruction(), [sample])['recon/ssim'] == pytest.approx(expected, rel=1e-9)


def test_lpips_carries_its_backbones_name(make_sample, fake_lpips):
    sample = make_sample(0)
    metrics = evaluate(VideoReconstruction(lpips=fake_lpips), [sample])
    expected = (sample.video - sample.reconstruction.clamp(-1, 1)).abs().mean().item()
    assert metrics['recon/lpips_fake'] == pytest.approx(expected, rel=1e-5)
    assert len(metrics['recon/lpips_fake_per_frame']) == 5


def test_clips_of_different_length_average_over_frames(make_sample):
    samples = [make_sample(0, num_frames=1), make_sample(1, num_frames=3)]
    metric = VideoReconstruction()
    metrics = evaluate(metric, samples)
    frames = [psnr_by_hand(samples[0], 0), *(psnr_by_hand(samples[1], t) for t in range(3))]
    assert metrics['recon/psnr'] == pytest.approx(sum(frames) / 4, rel=1e-6)
    assert metric.per_frame['psnr'] == pytest.approx([(frames[0] + frames[1]) / 2, *frames[2:]], rel=1e-6)


def test_substituted_clips_are_left_out_and_counted(make_sample, log_lines):
    good, bad = make_sample(0), make_sample(1, substituted_path='broken.mp4')
    assert evaluate(VideoReconstruction(), [bad, good]) == evaluate(VideoReconstruction(), [good])
    assert any('skipped 1 of 2 clips' in line for line in log_lines)
    assert evaluate(VideoReconstruction(), [bad]) == {}


def test_perfect_reconstruction_stays_finite(make_sample):
    sample = make_sample(0)
    sample.reconstruction = sample.video.clone()
    metrics = evaluate(VideoReconstruction(), [sample])
    assert metrics['recon/psnr'] == 100 and metrics['recon/ssim'] == pytest.approx(1)


def test_half_precision_reconstructions(make_sample):
    sample = make_sample(0)
    sample.reconstruction = sample.reconstruction.to(torch.bfloat16)
    assert math.isfinite(evaluate(VideoReconstruction(), [sample])['recon/psnr'])


class SmallestDistance(FakeDistance):
    """Stands in for LPIPS, which has a smallest frame."""

    def check_clip(self, shape):
        LPIPS.check_clip(types.SimpleNamespace(net='alex'), shape)


@pytest.mark.parametrize('part', ['metric', 'loss'])
def test_clips_too_small_for_lpips_are_refused_before_training(part, tiny_vae_config):
    model = MODELS.build(
        {'type': 'VideoAutoencoder', 'backbone': tiny_vae_config, 'loss': {'type': 'PredictiveReconLoss'}}
    )
    metric = VideoReconstruction()
    (model.loss if part == 'loss' else metric).lpips = SmallestDistance()
    clips = [{'inputs': torch.zeros(3, 5, 16, 48, dtype=torch.uint8)}]
    loader = types.SimpleNamespace(dataset=clips)
    runner = types.SimpleNamespace(
        model=model,
        train_dataloader=loader,
        val_dataloader=loader,
        val_loop=types.SimpleNamespace(evaluator=types.SimpleNamespace(metrics=[metric])),
    )
    where = {'metric': 'val_evaluator .* of val_dataloader', 'loss': 'model.loss .* of train_dataloader'}[part]
    with pytest.raises(ValueError, match=f"{where}: LPIPS with net='alex' needs .* 31 x 31 pixels, got 16 x 48"):
        HOOKS.build({'type': 'StartCheckHook'}).before_train(runner)


@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_values_that_are_not_finite_do_not_pass_for_colors(value, make_sample):
    sample = make_sample(0)
    sample.reconstruction[0, 1, 2, 3] = value
    metric = VideoReconstruction()
    metrics = evaluate(metric, [sample])
    assert math.isnan(metrics['recon/psnr']) and math.isfinite(metrics['recon/psnr_first'])
    assert [math.isnan(psnr) for psnr in metric.per_frame['psnr']] == [False, True, False, False, False]
