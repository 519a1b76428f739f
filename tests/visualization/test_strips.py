import numpy as np
import pytest
import torch

from pvvae_plugin.visualization import draw_panels, draw_strip, to_uint8
from pvvae_plugin.visualization.strips import BORDER, GAP, MAX_WIDTH, OBSERVED, PREDICTED


def clip(num_frames, size=8, seed=0):
    return np.random.default_rng(seed).integers(0, 200, (num_frames, size, size, 3), dtype=np.uint8)


def columns_of(strip, color):
    """Whether each pixel column holds the color."""
    return (strip == np.array(color, np.uint8)).all(axis=-1).any(axis=0)


def test_to_uint8_rounds_and_clips():
    values = torch.tensor([-1.5, -1, -0.999, 0.0, 0.995, 1.0, 2.0, float('nan')])
    video = values.view(1, 8, 1, 1).expand(3, 8, 2, 1)
    out = to_uint8(video)
    assert out.shape == (8, 2, 1, 3) and out.dtype == np.uint8
    # -0.999 is 0.1275, 0 is 127.5 (to even: 128), 0.995 is 254.36
    assert out[:, 0, 0, 0].tolist() == [0, 0, 0, 128, 254, 255, 255, 0]


def test_to_uint8_inverts_the_usual_normalization():
    levels = torch.arange(256)
    video = (levels.float() / 127.5 - 1).view(1, 256, 1, 1).expand(3, -1, -1, -1)
    assert (to_uint8(video)[:, 0, 0, 0] == levels.numpy()).all()


def test_frames_stand_where_they_belong():
    rows = [clip(3, seed=0), clip(3, seed=1)]
    strip = draw_strip(rows, scale=2)
    cell = 8 * 2 + 2 * BORDER + GAP
    assert strip.shape[1] == 3 * cell
    header = strip.shape[0] - 2 * cell
    for r, row in enumerate(rows):
        for t in range(3):
            top, left = header + r * cell + BORDER, t * cell + BORDER
            shown = strip[top : top + 16, left : left + 16]
            assert (shown == row[t].repeat(2, axis=0).repeat(2, axis=1)).all()


@pytest.mark.parametrize('num_observed, expected', [(None, [0, 0]), (2, [2, 2]), ([None, 1], [0, 3]), ([4, 3], [0, 1])])
def test_predicted_frames_have_a_border(num_observed, expected):
    strip = draw_strip([clip(4), clip(4)], num_observed=num_observed, scale=2)
    cell = 8 * 2 + 2 * BORDER + GAP
    header = strip.shape[0] - 2 * cell
    for r, count in enumerate(expected):
        marked = columns_of(strip[header + r * cell : header + (r + 1) * cell], PREDICTED)
        starts = [t for t in range(4) if marked[t * cell]]
        assert starts == list(range(4 - count, 4))


def test_small_frames_are_enlarged_and_captions_make_room():
    rows = [clip(9, 32), clip(9, 32)]
    plain, captioned = draw_strip(rows), draw_strip(rows, ['truth', 'from 1 frame'])
    assert plain.shape[1] == 9 * (96 + 2 * BORDER + GAP)
    assert captioned.shape[1] > plain.shape[1]
    margin = captioned.shape[1] - plain.shape[1]
    assert (captioned[:, :margin] < 128).any()  # text
    assert (captioned[:, margin:] == plain).all()


@pytest.mark.parametrize('num_frames, size', [(1, 8), (17, 32), (17, 256), (129, 64), (2, 3000)])
def test_any_clip_stays_readable(num_frames, size):
    strip = draw_strip([clip(num_frames, size)], ['truth'])
    assert strip.shape[1] <= max(MAX_WIDTH, 2 * size + 200)


def test_long_clips_keep_their_first_and_last_frame():
    row = clip(129, 64)
    strip = draw_strip([row])
    header = strip.shape[0] - (64 + 2 * BORDER + GAP)
    frames = strip[header + BORDER : header + BORDER + 64]
    assert (frames[:, BORDER : BORDER + 64] == row[0]).all()
    assert (frames[:, -GAP - BORDER - 64 : -GAP - BORDER] == row[-1]).all()


def test_panels_change_their_border_where_prediction_starts():
    panels = draw_panels([clip(5, 32), clip(5, 32)], ['truth', 'from 2 frames'], [None, 2])
    assert panels.shape[0] == 5 and panels.shape[1] % 2 == 0 and panels.shape[2] % 2 == 0
    half = panels.shape[2] // 2
    for t, panel in enumerate(panels):
        assert columns_of(panel[:, :half], OBSERVED).any() and not columns_of(panel[:, :half], PREDICTED).any()
        assert columns_of(panel[:, half:], PREDICTED).any() == (t >= 2)


def test_errors_name_the_value():
    with pytest.raises(ValueError, match=r'\(3, 8, 8, 3\), \(4, 8, 8, 3\)'):
        draw_strip([clip(3), clip(4)])
    with pytest.raises(ValueError, match='float32'):
        draw_strip([clip(3).astype(np.float32)])
    with pytest.raises(ValueError, match=r'one text per row \(1 rows\), got 2'):
        draw_strip([clip(3)], ['a', 'b'])
    with pytest.raises(ValueError, match=r'one number per row \(1 rows\), got 2'):
        draw_strip([clip(3)], num_observed=[1, 2])
    with pytest.raises(ValueError, match=r'got \(1, 3, 2, 8, 8\)'):
        to_uint8(torch.zeros(1, 3, 2, 8, 8))
