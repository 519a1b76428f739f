import math

import pytest
import torch

from pvvae_plugin.functional.rectified_flow import (
    SOLVERS,
    condition_frames,
    euler,
    frame_times,
    guided_velocity,
    heun,
    interpolate,
    sample_times,
    time_grid,
    velocity_target,
    with_conditioned_frames,
    with_guidance,
)

WEIGHTS = torch.tensor([0.3, 0.7], dtype=torch.float64)
MEANS = torch.tensor([-1.5, 1.0], dtype=torch.float64)
STDS = torch.tensor([0.4, 0.6], dtype=torch.float64)


def mixture_velocity(x, times):
    """Return E[data - noise | x_t = x] for 1D data from the mixture and independent standard normal noise.

    Within a component, (data - noise, x_t) is jointly Gaussian, so this is a linear regression.
    """
    x, t = x[:, None], times[:, None]
    variance = (1 - t) ** 2 + t**2 * STDS**2
    log_weight = WEIGHTS.log() - 0.5 * variance.log() - 0.5 * (x - t * MEANS) ** 2 / variance
    slope = (t * STDS**2 - (1 - t)) / variance
    return (log_weight.softmax(dim=1) * (MEANS + slope * (x - t * MEANS))).sum(dim=1)


def mixture_quantiles(probabilities):
    """Invert the mixture's distribution function by bisection."""
    low, high = torch.full_like(probabilities, -10), torch.full_like(probabilities, 10)
    for _ in range(60):
        middle = (low + high) / 2
        below = (WEIGHTS * torch.special.ndtr((middle[:, None] - MEANS) / STDS)).sum(dim=1) < probabilities
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return low


@pytest.fixture(scope='module')
def quantiles():
    """Return noise and its image under the exact flow. A 1D flow preserves order, so it maps quantiles to quantiles."""
    probabilities = (torch.arange(512, dtype=torch.float64) + 0.5) / 512
    return torch.special.ndtri(probabilities), mixture_quantiles(probabilities)


@pytest.mark.parametrize(('sampler', 'order'), [(euler, 1), (heun, 2)])
def test_order_of_the_error(quantiles, sampler, order):
    noise, exact = quantiles
    errors = [(sampler(mixture_velocity, noise, time_grid(n)) - exact).abs().mean() for n in (64, 128)]
    assert errors[1] < 5e-2
    assert abs(math.log2(errors[0] / errors[1]) - order) < 0.25


@pytest.mark.parametrize(('sampler', 'tolerance'), [(euler, 2e-2), (heun, 1e-3)])
@pytest.mark.parametrize('shift', [1.0, 2.0])
def test_samples_have_the_moments_of_the_mixture(quantiles, sampler, tolerance, shift):
    noise, _ = quantiles
    samples = sampler(mixture_velocity, noise, time_grid(200, shift))
    mean = (WEIGHTS * MEANS).sum()
    variance = (WEIGHTS * (STDS**2 + MEANS**2)).sum() - mean**2
    assert abs(samples.mean() - mean) < tolerance
    # 512 quantiles do not cover the tails completely
    assert abs(samples.var(correction=0) - variance) < tolerance + 2e-3


@pytest.mark.parametrize('steps', [1, 2, 5, 10])
@pytest.mark.parametrize('name', list(SOLVERS))
def test_the_network_is_called_as_often_as_the_table_says(name, steps):
    solver, seen = SOLVERS[name], []

    def velocity(x, times):
        assert times.shape == (3,) and times.dtype == torch.float32 and (times == times[0]).all()
        seen.append(times[0].item())
        return torch.ones_like(x)

    result = solver.integrate(velocity, torch.zeros(3, 2), time_grid(steps))
    assert len(seen) == steps * solver.calls_per_step
    assert seen[0] == 0
    # a straight path is followed exactly
    torch.testing.assert_close(result, torch.ones(3, 2))


def test_times_are_never_in_half_precision():
    def velocity(x, times):
        assert times.dtype == torch.float32
        return x

    euler(velocity, torch.zeros(1, 2, dtype=torch.bfloat16), time_grid(2))


@pytest.mark.parametrize('steps', [0, -1, 2.5])
def test_impossible_numbers_of_steps(steps):
    with pytest.raises(ValueError, match=f'num_inference_steps .* at least 1, got {steps}'):
        time_grid(steps)


def test_time_grid_is_sd3s_seen_from_the_other_side():
    assert time_grid(4).tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
    for shift in (0.5, 3.0):
        sigmas = [1 - i / 7 for i in range(8)]
        expected = [1 - shift * s / (1 + (shift - 1) * s) for s in sigmas]
        grid = time_grid(7, shift)
        torch.testing.assert_close(grid, torch.tensor(expected, dtype=torch.float64))
        assert grid[0] == 0 and grid[-1] == 1
    assert (time_grid(100, 3.0) < 0.5).sum() > 70  # most steps near noise
    with pytest.raises(ValueError, match='shift must be positive'):
        time_grid(4, 0.0)
    with pytest.raises(ValueError, match='num_inference_steps'):
        time_grid(0)


def test_interpolate_ends_and_slope():
    data, noise = torch.randn(2, 3, 4, 2, 2, dtype=torch.float64), torch.randn(2, 3, 4, 2, 2, dtype=torch.float64)
    assert torch.equal(interpolate(data, noise, torch.zeros(2)), noise)
    assert torch.equal(interpolate(data, noise, torch.ones(2)), data)
    low, high = (interpolate(data, noise, torch.tensor([t, t + 0.25], dtype=torch.float64)) for t in (0.25, 0.5))
    torch.testing.assert_close((high - low) / 0.25, velocity_target(data, noise))
    times = torch.rand(2, 4, dtype=torch.float64)
    mixed = interpolate(data, noise, times)
    for n in range(2):
        for f in range(4):
            t = times[n, f].item()
            torch.testing.assert_close(mixed[n, :, f], (1 - t) * noise[n, :, f] + t * data[n, :, f])
    assert interpolate(data[:, 0, 0, 0, 0], noise[:, 0, 0, 0, 0], torch.rand(2)).shape == (2,)
    for wrong in (torch.rand(3), torch.rand(2, 3), torch.rand(())):
        with pytest.raises(ValueError, match='times of shape'):
            interpolate(data, noise, wrong)


def test_distributions_of_times():
    generator = torch.Generator().manual_seed(0)
    uniform = sample_times(20000, rng=generator)
    assert uniform.dtype == torch.float32 and uniform.min() >= 0 and uniform.max() < 1
    normal = sample_times(20000, 'logit-normal', generator)
    edges = torch.tensor([0.1, 0.3, 0.5, 0.8])
    for edge in edges:
        assert abs((uniform < edge).float().mean() - edge) < 0.015
        assert abs((normal < edge).float().mean() - torch.special.ndtr(torch.logit(edge))) < 0.015
    with pytest.raises(ValueError, match="'logit-normal', got 'cosine'"):
        sample_times(2, 'cosine')


@pytest.mark.parametrize('distribution', ['uniform', 'logit-normal'])
def test_a_clips_time_does_not_depend_on_its_batch(distribution):
    def generators(*seeds):
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    three = sample_times(3, distribution, generators(5, 6, 7))
    assert torch.equal(sample_times(1, distribution, generators(6)), three[1:2])
    assert three.unique().numel() == 3
    with pytest.raises(ValueError, match='2 generators for 3 times'):
        sample_times(3, distribution, generators(1, 2))


def test_guidance_is_exact_at_both_ends_and_linear_over_all_channels():
    conditional, unconditional = torch.randn(2, 1000, 3), torch.randn(2, 1000, 3) * 1e3
    assert torch.equal(guided_velocity(conditional, unconditional, 1.0), conditional)
    assert torch.equal(guided_velocity(conditional, unconditional, 0.0), unconditional)
    expected = unconditional.double() + 4.0 * (conditional.double() - unconditional.double())
    torch.testing.assert_close(
        guided_velocity(conditional, unconditional, 4.0).double(), expected, rtol=1e-5, atol=1e-2
    )


class CountingNetwork:
    """Network with velocity = label in every channel. Records the batch size of each call."""

    def __init__(self):
        self.batches = []

    def __call__(self, x, times, labels):
        self.batches.append((len(x), times.min().item()))
        assert len(x) == len(times) == len(labels)
        return torch.ones_like(x) * labels.view(-1, *[1] * (x.ndim - 1))


def test_guidance_makes_one_call_inside_its_interval_and_none_outside():
    labels, x = torch.tensor([3, 5]), torch.zeros(2, 8, 2, 1, 1)
    network = CountingNetwork()
    velocity = with_guidance(network, labels, null_label=10, scale=2.0, interval=(0.25, 0.5))
    for time, size, value in ((0.0, 2, 3.0), (0.25, 4, -4.0), (0.5, 4, -4.0), (0.75, 2, 3.0)):
        out = velocity(x, torch.full((2,), time))
        assert network.batches[-1] == (size, time)
        assert (out[0] == value).all()  # 10 + 2 * (3 - 10) = -4, in all 8 channels
    assert len(network.batches) == 4

    network = CountingNetwork()
    assert (with_guidance(network, labels, 10, 1.0)(x, torch.rand(2))[1] == 5.0).all()
    assert network.batches[0][0] == 2
    assert (with_guidance(network, labels, 10, 0.0)(x, torch.rand(2)) == 10.0).all()
    euler(with_guidance(network, labels, 10, 3.0), x, time_grid(7))
    assert len(network.batches) == 2 + 7
    for interval in ((0.5, 0.2), (-0.1, 1.0), (0.0, 1.1)):
        with pytest.raises(ValueError, match='interval must be'):
            with_guidance(network, labels, 10, 2.0, interval)


def test_conditioned_frames_are_clean_in_every_call_and_at_time_one():
    clean, noise = torch.randn(2, 3, 2, 1, 1), torch.randn(2, 3, 5, 1, 1)
    calls = []

    def velocity(x, times):
        calls.append(times)
        assert torch.equal(x[:, :, :2], clean)
        return torch.ones_like(x)

    result = condition_frames(euler(with_conditioned_frames(velocity, clean, 2), noise, time_grid(4)), clean, 2)
    assert torch.equal(result[:, :, :2], clean)
    torch.testing.assert_close(result[:, :, 2:], noise[:, :, 2:] + 1)
    assert len(calls) == 4
    assert calls[1].tolist() == [[1.0, 1.0, 0.25, 0.25, 0.25]] * 2


def test_guidance_interval_looks_at_the_frames_that_are_not_conditioned():
    network = CountingNetwork()
    guided = with_guidance(network, torch.tensor([1]), 2, 3.0, interval=(0.0, 0.5))
    euler(with_conditioned_frames(guided, torch.zeros(1, 1, 1, 1, 1), 1), torch.zeros(1, 1, 3, 1, 1), time_grid(4))
    assert [size for size, _ in network.batches] == [2, 2, 2, 1]


def test_each_clip_may_have_its_own_number_of_conditioned_frames():
    x, clean = torch.zeros(3, 1, 4, 1, 1), torch.ones(3, 1, 4, 1, 1)
    counts = torch.tensor([0, 1, 4])
    expected = [[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]]
    assert condition_frames(x, clean, counts)[:, 0, :, 0, 0].tolist() == expected
    assert frame_times(torch.zeros(3), counts, 4).tolist() == expected
    for wrong in (5, -1, torch.tensor([1, 2]), torch.tensor([0.5, 1.0, 1.0])):
        with pytest.raises(ValueError, match=r'num_conditioned must be .* in 0\.\.4'):
            condition_frames(x, clean, wrong)
    with pytest.raises(ValueError, match=r'in 0\.\.2'):
        condition_frames(x, clean[:, :, :2], 3)
