import numpy as np
import pytest
from PIL import Image

from pvvae_plugin.datasets import read_clip
from pvvae_plugin.sampling.sheets import choose_shown, write_sheets
from pvvae_plugin.visualization import draw_panels, draw_strip
from pvvae_plugin.visualization.strips import OBSERVED, PREDICTED


def clips_of(num, size=16, frames=3):
    draws = np.random.default_rng(0).integers(0, 200, (num, frames, 1, 1, 3), dtype=np.uint8)
    return {i: np.broadcast_to(draws[i], (frames, size, size, 3)).copy() for i in range(num)}


def holds(picture, color):
    return (picture == np.array(color, np.uint8)).all(-1).any()


def test_every_class_gets_its_share_of_the_room():
    assert choose_shown([0, 1, 0, 1, 2], 5, 5) == [0, 2, 1, 3, 4]
    assert choose_shown([0, 0, 0, 0, 1, 1], 6, 4) == [0, 1, 4, 5]
    assert choose_shown([2, 2, 2, 2, 0], 5, 3) == [4, 0, 1]
    assert choose_shown(list(range(100)), 100, 3) == [0, 1, 2]
    assert choose_shown(None, 9, 4) == [0, 1, 2, 3]
    assert choose_shown(None, 2, 4) == [0, 1]


def test_sheet_and_grid_hold_the_videos_class_by_class(tmp_path):
    clips, labels, captions = clips_of(5), [1, 0, 1, 0, 1], list('abcde')
    write_sheets(tmp_path, clips, captions, labels, None, 8)
    order = [1, 3, 0, 2, 4]
    sheet = np.asarray(Image.open(tmp_path / 'sheet.png'))
    assert (sheet == draw_strip([clips[i] for i in order], [captions[i] for i in order])).all()
    gif = Image.open(tmp_path / 'grid.gif')
    webm, fps = read_clip(str(tmp_path / 'grid.webm'), range)
    assert gif.n_frames == len(webm) == 3 and fps == 8 and gif.size == webm.shape[2:0:-1]
    centers = [(1, 1), (1, 3), (1, 5), (3, 1), (3, 3)]  # of five videos in three columns, in sixths and quarters
    for index, (row, column) in zip(order, centers, strict=True):
        y, x = round(webm.shape[1] * row / 4) + 8, round(webm.shape[2] * column / 6)  # below the caption
        assert np.allclose(webm[:, y, x].astype(int), clips[index][:, 0, 0], atol=12)


def test_generated_frames_are_marked_where_some_were_given(tmp_path):
    clips = clips_of(2)
    write_sheets(tmp_path, clips, ['a', 'b'], None, 1, 8)
    gif = Image.open(tmp_path / 'grid.gif')
    for frame, color in ((0, OBSERVED), (1, PREDICTED)):
        gif.seek(frame)
        picture = np.asarray(gif.convert('RGB'), dtype=int)
        assert (np.abs(picture - color).max(-1) < 16).any()
    sheet = np.asarray(Image.open(tmp_path / 'sheet.png'))
    assert holds(sheet, PREDICTED)
    write_sheets(tmp_path, clips, ['a', 'b'], None, None, 8)
    assert not holds(np.asarray(Image.open(tmp_path / 'sheet.png')), PREDICTED)


@pytest.mark.parametrize(('num', 'size', 'frames'), [(64, 160, 1), (1, 8, 2), (3, 640, 1)])
def test_any_number_of_videos_makes_a_grid_of_bearable_size(num, size, frames, tmp_path):
    write_sheets(tmp_path, clips_of(num, size, frames), [f'class #{i}' for i in range(num)], None, None, 8)
    width, height = Image.open(tmp_path / 'grid.gif').size
    assert max(width, height) <= 1500 and width % 2 == height % 2 == 0


def test_panels_wrap_into_rows():
    clips = list(clips_of(3, size=96).values())
    one, two = draw_panels(clips, ['a', 'b', 'c']), draw_panels(clips, ['a', 'b', 'c'], columns=2)
    height, width = two.shape[1] // 2, one.shape[2] // 3
    assert one.shape[1] - height in (0, 1) and two.shape[2] == 2 * width  # one row is made even on its own
    assert (two[:, :height] == one[:, :height, : 2 * width]).all()
    assert (two[:, height:, :width] == one[:, :height, 2 * width :]).all()
    assert (two[:, height:, width:] == 255).all()
