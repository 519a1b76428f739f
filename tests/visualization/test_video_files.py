import io
import os
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from PIL import Image

from pvvae_plugin.visualization import encode_gif, write_gif, write_video


def moving_square(num_frames=9, size=32):
    frames = np.full((num_frames, size, size, 3), (30, 60, 120), np.uint8)
    for t in range(num_frames):
        frames[t, 8:20, t : t + 10] = (220, 180, 40)
    return frames


def read_gif(source):
    image = Image.open(source)
    frames, durations = [], []
    for t in range(image.n_frames):
        image.seek(t)
        frames.append(np.asarray(image.convert('RGB')))
        durations.append(image.info['duration'])
    return np.stack(frames), durations, image.info.get('loop')


def test_gif_keeps_frames_time_and_loops(tmp_path):
    frames = moving_square()
    write_gif(tmp_path / 'new' / 'clip.gif', frames, fps=8)
    shown, durations, loop = read_gif(tmp_path / 'new' / 'clip.gif')
    assert (shown == frames).all()  # two colors fit into a palette
    assert set(durations) <= {120, 130} and abs(sum(durations) - 9000 / 8) <= 5
    assert loop == 0  # endlessly
    assert [p.name for p in (tmp_path / 'new').iterdir()] == ['clip.gif']


def test_gif_of_many_colors_is_close():
    y, x = np.mgrid[:64, :64]
    frames = np.stack([np.stack([4 * x, 4 * y, (4 * x + 8 * t) % 256], axis=-1) for t in range(4)]).astype(np.uint8)
    shown, _, _ = read_gif(io.BytesIO(encode_gif(frames, 10)))
    assert np.abs(shown.astype(int) - frames).mean() < 8


def test_equal_neighbors_keep_their_time():
    _, durations, _ = read_gif(io.BytesIO(encode_gif(np.zeros((8, 16, 16, 3), np.uint8), 8)))
    assert sum(durations) == 1000


def test_webm_can_be_read_back(tmp_path):
    frames = moving_square(size=64)
    write_video(tmp_path / 'clip.webm', frames, fps=8)
    capture = cv2.VideoCapture(str(tmp_path / 'clip.webm'))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(8)
    shown = []
    while True:
        ok, frame = capture.read()
        if not ok:
            break
        shown.append(frame[..., ::-1])
    assert len(shown) == 9
    assert np.abs(np.stack(shown).astype(int) - frames).mean() < 6
    assert [p.name for p in tmp_path.iterdir()] == ['clip.webm']


def test_a_missing_codec_is_said(tmp_path, monkeypatch):
    class NoWriter:
        def __init__(self, *args):
            pass

        def isOpened(self):
            return False

    monkeypatch.setattr(cv2, 'VideoWriter', NoWriter)
    monkeypatch.setattr(cv2, 'VideoWriter_fourcc', lambda *codec: 0, raising=False)
    with pytest.raises(RuntimeError, match='neither VP9 nor VP8'):
        write_video(tmp_path / 'clip.webm', moving_square(), 8)
    assert not list(tmp_path.iterdir())


def test_errors_name_the_value(tmp_path):
    frames = moving_square()
    with pytest.raises(ValueError, match="'clip.mp4'"):
        write_video(tmp_path / 'clip.mp4', frames, 8)
    with pytest.raises(ValueError, match='got 31 x 32'):
        write_video(tmp_path / 'clip.webm', frames[:, 1:], 8)
    with pytest.raises(ValueError, match='fps=60'):
        write_gif(tmp_path / 'clip.gif', frames, 60)
    with pytest.raises(ValueError, match='got 0'):
        write_gif(tmp_path / 'clip.gif', frames, 0)
    with pytest.raises(ValueError, match='float64'):
        write_gif(tmp_path / 'clip.gif', frames / 255, 8)


def test_the_same_frames_give_the_same_bytes(tmp_path):
    frames = moving_square()
    for name in ('a', 'b'):
        write_video(tmp_path / f'{name}.webm', frames, fps=8)
    assert (tmp_path / 'a.webm').read_bytes() == (tmp_path / 'b.webm').read_bytes()


def test_nothing_is_said_on_the_console(tmp_path, capfd):
    write_video(tmp_path / 'a.webm', moving_square(), fps=8)
    assert capfd.readouterr() == ('', '')


def test_threads_leave_the_console_as_it_was(tmp_path):
    """Standard error belongs to the whole process: threads that write at once must not swap it for good."""
    before = os.fstat(2)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: write_video(tmp_path / f'{name}.WEBM', moving_square(), fps=8), range(12)))
    after = os.fstat(2)
    assert (after.st_dev, after.st_ino) == (before.st_dev, before.st_ino)
    assert len(list(tmp_path.glob('*.WEBM'))) == 12
