import pytest
import torch
from mmengine.evaluator import Evaluator

from pvvae_plugin.evaluation import FuturePrediction, format_prediction_table


def evaluate(metric, samples):
    evaluator = Evaluator(metric)
    evaluator.process(samples)
    return evaluator.evaluate(len(samples))


def by_hand(samples, k, threshold, moving_only):
    """(model, repeat, mean, values) summed over clips, frame by frame in float64; temporal ratio 2."""
    sums = [0.0] * 4
    for sample in samples:
        truth = sample.video.double()
        num_frames = truth.shape[1]
        observed = num_frames - 2 * k
        if observed < 1 or not sample.predictions:
            continue
        prediction = sample.predictions[1 + (observed - 1) // 2].double().clamp(-1, 1)
        for t in range(observed, num_frames):
            mask = (truth[:, t] - truth[:, t - 1]).abs().max(dim=0).values > threshold
            mask = mask if moving_only else torch.ones_like(mask)
            guesses = (prediction[:, t], truth[:, observed - 1], truth[:, :observed].mean(dim=1))
            for i, guess in enumerate(guesses):
                sums[i] += ((guess - truth[:, t]) ** 2)[:, mask].sum().item()
            sums[3] += 3 * mask.sum().item()
    return sums


@pytest.mark.parametrize('prefix, moving', [('', False), ('moving_', True)])
def test_errors_and_ratios_are_quotients_of_sums(make_sample, prefix, moving):
    # clips of different lengths: a mean of per-clip ratios would differ
    samples = [make_sample(i, num_frames=n, size=6) for i, n in enumerate([5, 5, 3])]
    samples[0].video *= 0.2
    metrics = evaluate(FuturePrediction(threshold=0.3), samples)
    for k in (1, 2):
        model, repeat, mean, count = by_hand(samples, k, 0.3, moving)
        expected = {
            'mse': model / count,
            'repeat': repeat / count,
            'mean': mean / count,
            'vs_repeat': model / repeat,
            'vs_mean': model / mean,
        }
        for name, value in expected.items():
            assert metrics[f'predict/k{k}_{prefix}{name}'] == pytest.approx(value, rel=1e-9)
    assert len(metrics) == 2 * 2 * 5


def test_copying_the_last_frame_scores_one(make_sample):
    sample = make_sample(0)
    sample.predictions[1] = sample.video[:, :1].expand(-1, 5, -1, -1)
    metrics = evaluate(FuturePrediction(), [sample])
    for name in ('vs_repeat', 'vs_mean', 'moving_vs_repeat', 'moving_vs_mean'):  # one frame is its own mean
        assert metrics[f'predict/k2_{name}'] == pytest.approx(1, rel=1e-12)


def test_stills_and_substituted_clips_are_left_out_and_counted(make_sample, log_lines):
    good = make_sample(0)
    others = [make_sample(1, num_frames=1), make_sample(2, substituted_path='broken.mp4')]
    still_without_field = make_sample(3, num_frames=1)
    del still_without_field.predictions
    metrics = evaluate(FuturePrediction(), [others[0], good, others[1], still_without_field])
    assert metrics == evaluate(FuturePrediction(), [good])
    assert log_lines[0] == 'FuturePrediction: skipped 1 of 4 clips whose files could not be read'
    assert log_lines[1] == 'FuturePrediction: skipped 2 of 4 clips with nothing to predict'
    assert evaluate(FuturePrediction(), others) == {}


def test_static_clips_lack_what_would_divide_by_zero(make_sample):
    sample = make_sample(0)
    sample.video[:] = 0.5
    metrics = evaluate(FuturePrediction(), [sample])
    assert set(metrics) == {f'predict/k{k}_{name}' for k in (1, 2) for name in ('mse', 'repeat', 'mean')}
    assert metrics['predict/k1_repeat'] == 0 < metrics['predict/k1_mse']


def test_the_table_is_aligned(make_sample):
    metrics = evaluate(FuturePrediction(), [make_sample(0)])
    table = format_prediction_table({name.removeprefix('predict/'): value for name, value in metrics.items()})
    title, *rows = table.splitlines()
    assert len(rows) == 3 and len({len(row) for row in rows}) == 1
    assert [row.split()[0] for row in rows[1:]] == ['1', '2']
    assert f'{metrics["predict/k2_moving_vs_repeat"]:.4f}' in rows[2].split()
    assert format_prediction_table({'k3_mse': 0.5}).splitlines()[2].split() == ['3', '0.5000'] + ['-'] * 6
