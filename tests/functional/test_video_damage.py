import math

import pytest
import torch

from pvvae_plugin.functional.video_damage import add_noise, flicker, freeze_end, gaussian_blur, shuffle_frames

# Each corruption with a valid strength.
DAMAGES = (gaussian_blur, add_noise, shuffle_frames, freeze_end, flicker)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def video():
    return torch.rand(3, 8, 6, 10, generator=generator(5)) * 1.6 - 0.8


@pytest.fixture
def numbered():
    """Create a clip whose frame t has the value t / 10."""
    return (torch.arange(8.0) / 10).view(1, -1, 1, 1).expand(3, 8, 2, 2)


@pytest.mark.parametrize('damage', DAMAGES)
def test_all_keep_shape_and_range_and_the_clip_they_are_given(damage, video):
    before = video.clone()
    assert torch.equal(damage(video, 0, generator()), video)
    damaged = damage(video, 1, generator())
    assert damaged.shape == video.shape and damaged.dtype == video.dtype
    assert damaged.abs().max() <= 1
    assert not torch.equal(damaged, video)
    assert torch.equal(damaged, damage(video, 1, generator()))
    assert torch.equal(video, before)


@pytest.mark.parametrize('damage', (add_noise, shuffle_frames, flicker))
def test_other_draws_give_another_damage(damage, video):
    assert not torch.equal(damage(video, 1, generator(0)), damage(video, 1, generator(1)))


@pytest.mark.parametrize('damage', DAMAGES)
def test_unusable_clips_and_strengths_are_refused(damage, video):
    with pytest.raises(ValueError, match='must be'):
        damage(video, -0.1, generator())
    for wrong in (video[None], video[:2], video.to(torch.uint8)):
        with pytest.raises(ValueError, match='float tensor'):
            damage(wrong, 1, generator())
    if damage in (shuffle_frames, freeze_end, flicker):
        with pytest.raises(ValueError, match=r'in \[0, 1\]'):
            damage(video, 1.5, generator())


def test_blur_spreads_a_point_as_a_gaussian_does():
    sigma, size = 1.5, 21
    video = torch.zeros(3, 1, size, size, dtype=torch.float64)
    video[:, :, 10, 10] = 1
    blurred = gaussian_blur(video, sigma)[0, 0]
    weight = [math.exp(-((i - 10) ** 2) / (2 * sigma**2)) if abs(i - 10) <= 5 else 0.0 for i in range(size)]
    line = torch.tensor(weight, dtype=torch.float64) / sum(weight)
    torch.testing.assert_close(blurred, line[:, None] * line[None, :])


def test_blur_leaves_uniform_pictures_and_other_frames_alone(video):
    flat = torch.full((3, 2, 5, 5), 0.3)
    torch.testing.assert_close(gaussian_blur(flat, 4.0), flat)
    torch.testing.assert_close(gaussian_blur(video, 2.0)[:, 3:4], gaussian_blur(video[:, 3:4], 2.0))


def test_noise_has_the_deviation_asked_for_and_is_more_of_the_same():
    video = torch.zeros(3, 16, 64, 64)
    weak, strong = (add_noise(video, sigma, generator()) for sigma in (8, 16))
    assert (weak * 127.5).std().item() == pytest.approx(8, rel=0.01)
    torch.testing.assert_close(strong, 2 * weak)


@pytest.mark.parametrize(('share', 'moved'), [(0.01, 2), (0.25, 2), (0.5, 4), (1, 8)])
def test_as_many_frames_are_moved_as_asked_for(share, moved, numbered):
    for seed in range(20):
        shuffled = shuffle_frames(numbered, share, generator(seed))
        assert (shuffled != numbered)[0, :, 0, 0].sum() == moved
        assert torch.equal(shuffled.sort(dim=1).values, numbered)  # none is lost


def test_one_frame_cannot_be_moved():
    video = torch.zeros(3, 1, 2, 2)
    assert torch.equal(shuffle_frames(video, 1, generator()), video)


@pytest.mark.parametrize(('share', 'last'), [(0.25, 5), (0.5, 3), (0.75, 1), (1, 0)])
def test_the_end_repeats_the_frame_before_it(share, last, numbered):
    frozen = freeze_end(numbered, share)[0, :, 0, 0]
    expected = torch.arange(8.0).clamp(max=last) / 10
    torch.testing.assert_close(frozen, expected)


def test_flicker_multiplies_whole_frames(video):
    ratio = (flicker(video, 0.1, generator()) + 1) / (video + 1)
    factor = ratio[:1, :, :1, :1]
    torch.testing.assert_close(ratio, factor.expand_as(ratio))
    assert factor.min() >= 0.9 and factor.max() <= 1.1 and factor.std() > 0.01
    twice = (flicker(video, 0.2, generator()) + 1) / (video + 1)
    inside = video < 0.6  # brighter frames may be clipped to white
    torch.testing.assert_close((twice - 1)[inside], (2 * (ratio - 1))[inside], rtol=1e-3, atol=1e-5)
