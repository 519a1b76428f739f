import pytest
import torch

from pvvae_plugin.functional.prediction_error import moving_pixels, prediction_errors


def brute_force(truth, prediction, observed, threshold):
    """Compute the eight sums of a clip (C, T, H, W) value by value."""
    channels, frames, height, width = truth.shape
    sums = dict.fromkeys(('model', 'repeat', 'mean', 'count'), 0.0)
    moving = dict(sums)
    truth, prediction = truth.double().tolist(), prediction.double().tolist()
    for t in range(observed, frames):
        for i in range(height):
            for j in range(width):
                moves = any(abs(truth[c][t][i][j] - truth[c][t - 1][i][j]) > threshold for c in range(channels))
                for c in range(channels):
                    target = truth[c][t][i][j]
                    terms = {
                        'model': (prediction[c][t][i][j] - target) ** 2,
                        'repeat': (truth[c][observed - 1][i][j] - target) ** 2,
                        'mean': (sum(truth[c][s][i][j] for s in range(observed)) / observed - target) ** 2,
                        'count': 1,
                    }
                    for name, term in terms.items():
                        sums[name] += term
                        moving[name] += term if moves else 0
    return [*sums.values(), *moving.values()]


@pytest.mark.parametrize('observed', [1, 3, 4])
def test_sums_match_loops(observed):
    generator = torch.Generator().manual_seed(2)
    truth = torch.rand(2, 3, 5, 4, 6, generator=generator) * 0.3
    prediction = torch.rand(2, 3, 5, 4, 6, generator=generator) * 0.3
    ours = torch.stack(prediction_errors(truth, prediction, observed, threshold=0.2))
    for n in range(2):
        expected = torch.tensor(brute_force(truth[n], prediction[n], observed, 0.2), dtype=torch.float64)
        torch.testing.assert_close(ours[:, n], expected)
    assert 0 < ours[7].sum() < ours[3].sum()  # some pixels move, not all


def test_a_moving_dot_by_hand():
    truth = torch.full((1, 3, 3, 1, 3), -1.0)
    for t in range(3):
        truth[:, :, t, 0, t] = 1.0
    errors = prediction_errors(truth, truth, 1)
    # each of 2 predicted frames: the dot's old and new place are wrong by 2 in 3 channels
    assert errors.model.item() == 0 and errors.moving_model.item() == 0
    assert errors.repeat.item() == errors.mean.item() == 2 * 2 * 3 * 4
    assert errors.count.item() == 2 * 3 * 3
    assert errors.moving_count.item() == 2 * 2 * 3
    # in frame 2 the dot left place 1 for 2; place 0, which a repeated frame 0 gets wrong, no longer moves
    assert errors.moving_repeat.item() == (2 + 1) * 3 * 4


def test_a_pixel_moves_when_any_channel_does():
    video = torch.zeros(1, 3, 2, 2, 2)
    video[0, 1, 1, 0, 1] = 0.11
    assert moving_pixels(video, 0.1).flatten().tolist() == [False, True, False, False]
    assert not moving_pixels(video, 0.12).any()


def test_observed_frames_of_the_prediction_are_not_read():
    truth = torch.rand(1, 3, 5, 2, 2)
    prediction = truth.clone()
    prediction[:, :, :2] = float('nan')
    assert prediction_errors(truth, prediction, 2).model.item() == 0


def test_errors_name_the_value():
    video = torch.zeros(1, 3, 5, 2, 2)
    for observed in (0, 5):
        with pytest.raises(ValueError, match=rf'1\.\.4 .* got {observed}'):
            prediction_errors(video, video, observed)
    with pytest.raises(ValueError, match=r'\(1, 3, 4, 2, 2\)'):
        prediction_errors(video, video[:, :, :4], 1)
