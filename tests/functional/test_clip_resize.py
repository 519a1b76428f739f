import math

import pytest
import torch

from pvvae_plugin.functional.clip_resize import resize_clip, resize_frames


def sampled(line, position):
    """Interpolate between two neighbors; clamp at the ends."""
    position = min(max(position, 0.0), len(line) - 1.0)
    low = min(int(math.floor(position)), len(line) - 1)
    high = min(low + 1, len(line) - 1)
    return line[low] * (1 - (position - low)) + line[high] * (position - low)


def brute_force(picture, height, width, align_corners=False):
    """Resize a float64 image pixel by pixel."""

    def position(index, length, new):
        if align_corners:
            return index * (length - 1) / (new - 1)
        return (index + 0.5) * length / new - 0.5

    h, w = picture.shape
    result = torch.empty(height, width, dtype=torch.float64)
    for i in range(height):
        row = [sampled(picture[:, x].tolist(), position(i, h, height)) for x in range(w)]
        for j in range(width):
            result[i, j] = sampled(row, position(j, w, width))
    return result


def of_each_picture(video, function):
    flat = video.double().flatten(0, 2)
    return torch.stack([function(picture) for picture in flat]).unflatten(0, video.shape[:3])


@pytest.mark.parametrize(('height', 'width'), [(5, 9), (20, 30), (12, 12), (12, 7)])
def test_stretching_is_bilinear_with_half_pixel_centers(height, width):
    video = torch.rand(2, 3, 2, height, width) * 2 - 1
    expected = of_each_picture(video, lambda picture: brute_force(picture, 12, 12))
    torch.testing.assert_close(resize_clip(video, 12), expected.float(), atol=5e-6, rtol=0)


@pytest.mark.parametrize(
    ('height', 'width', 'tall', 'wide', 'top', 'left'),
    [(20, 30, 12, 18, 0, 3), (9, 10, 12, 14, 0, 1), (10, 9, 14, 12, 1, 0), (7, 11, 12, 19, 0, 3), (5, 5, 12, 12, 0, 0)],
)
def test_short_side_and_then_the_middle(height, width, tall, wide, top, left):
    video = torch.rand(1, 3, 2, height, width) * 2 - 1
    whole = of_each_picture(video, lambda picture: brute_force(picture, tall, wide))
    expected = whole[..., top : top + 12, left : left + 12].float()
    torch.testing.assert_close(resize_clip(video, 12, 'short-side-crop'), expected, atol=5e-6, rtol=0)


def test_a_square_stays_one_where_float_arithmetic_would_round_up():
    assert 25 * (224 / 25) > 224
    video = torch.rand(1, 1, 1, 25, 25)
    assert torch.equal(resize_clip(video, 224, 'short-side-crop'), resize_clip(video, 224, 'stretch'))


def test_aligned_corners():
    video = torch.rand(1, 2, 2, 5, 9)
    expected = of_each_picture(video, lambda picture: brute_force(picture, 11, 7, align_corners=True))
    resized = resize_frames(video, 11, 7, align_corners=True)
    torch.testing.assert_close(resized, expected.float(), atol=5e-6, rtol=0)
    assert torch.equal(resized[..., 0, 0], video[..., 0, 0])


@pytest.mark.parametrize('mode', ['stretch', 'short-side-crop'])
def test_nothing_changes_at_the_right_size(mode):
    video = torch.rand(1, 3, 2, 8, 8)
    assert torch.equal(resize_clip(video, 8, mode), video)


def test_refusals():
    with pytest.raises(ValueError, match='nearest'):
        resize_clip(torch.rand(1, 3, 2, 8, 8), 8, 'nearest')
    with pytest.raises(ValueError, match=r'\(3, 8, 8\)'):
        resize_clip(torch.rand(3, 8, 8), 8)
