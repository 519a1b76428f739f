"""AV1, which the usual builds of decord and OpenCV cannot decode, is read with PyAV or named with a remedy."""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from pvvae_plugin.datasets import ClipError, VideoDataset, iterate_frames, open_video, read_clip
from pvvae_plugin.datasets.checking.verification import Entry, check_file
from pvvae_plugin.datasets.readers import DecordReader, OpenCVReader

av = pytest.importorskip('av')
REAL_DATA = Path(os.environ.get('PVVAE_TEST_DATA') or Path(__file__).resolve().parents[3] / '..' / 'shared' / 'data')


def decoders_read(path):
    """Return True if this build of decord or OpenCV decodes the file itself."""
    for reader_type in (DecordReader, OpenCVReader):
        try:
            return bool(len(reader_type(str(path))))
        except (ClipError, ImportError):
            continue
    return False


@pytest.fixture(scope='module')
def av1(tmp_path_factory):
    """A video of which frame t is gray 16 * t."""
    if 'libsvtav1' not in av.codecs_available:
        pytest.skip('this PyAV cannot write AV1')
    path = tmp_path_factory.mktemp('av1') / 'a.mkv'
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libsvtav1', rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, 'yuv420p'
        for t in range(12):
            frame = np.full((64, 96, 3), 16 * t, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
        container.mux(stream.encode())
    if decoders_read(path):
        pytest.skip('decord or OpenCV decode AV1 here')
    return path


def test_av1_is_read_with_pyav(av1):
    reader = open_video(str(av1))
    assert len(reader) == 12 and reader.fps == pytest.approx(25)
    np.testing.assert_allclose(reader.times, np.arange(12) / 25, atol=1e-3)
    frames, fps = read_clip(str(av1), lambda num_frames: [num_frames - 1, 3, 3])
    assert fps == pytest.approx(25) and frames.shape == (3, 64, 96, 3)
    np.testing.assert_allclose(frames.mean((1, 2, 3)), [176, 48, 48], atol=3)
    np.testing.assert_allclose([f.mean() for f in iterate_frames(str(av1))], 16 * np.arange(12), atol=3)
    assert len(VideoDataset(str(av1.parent), clip_len=9)[0]['frames']) == 9
    with pytest.raises(ClipError, match='PyAV: no frame 12'):
        reader.read([3, 12])


def test_verify_reads_av1(av1):
    (finding,) = check_file((str(av1), [Entry(str(av1), None, 5)]))
    assert finding.kind == 'good', finding
    assert finding.facts['frames'] == 12 and any('AV01' in note for note in finding.facts['notes'])


def test_without_pyav_the_codec_and_the_remedy_are_named(av1, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'av', None)
    av1 = shutil.copy(av1, tmp_path / 'new.mkv')  # readers remember files that they have seen
    for error in (
        pytest.raises(ClipError, open_video, str(av1)),
        pytest.raises(ClipError, list, iterate_frames(str(av1))),
    ):
        assert 'codec AV01' in error.value.reason and 'pip install av' in error.value.reason
        assert 'ffmpeg -i' in error.value.reason and 'st_nb' not in error.value.reason
    (finding,) = check_file((str(av1), [Entry(str(av1), None, 5)]))
    assert finding.kind == 'unreadable' and 'pip install av' in finding.reason


def test_pyav_does_not_read_damaged_files_of_other_codecs(tmp_path, write_video):
    path = Path(write_video(tmp_path / 'a.mp4'))
    content = bytearray(path.read_bytes())
    start = content.index(b'mdat')
    content[start + 4 : start + 900] = bytes(896)
    path.write_bytes(content[: start + 900])
    with pytest.raises(ClipError) as error:
        open_video(str(path))
    assert 'PyAV' not in error.value.reason and 'pip' not in error.value.reason


@pytest.mark.skipif(not (REAL_DATA / 'odd_videos').is_dir(), reason=f'no real footage in {REAL_DATA} (PVVAE_TEST_DATA)')
def test_a_real_av1_file():
    path = str(REAL_DATA / 'odd_videos' / 'av1_video.mkv')
    frames, _ = read_clip(path, lambda num_frames: [0, num_frames // 2, num_frames - 1])
    with av.open(path) as container:
        expected = [frame.to_ndarray(format='rgb24') for frame in container.decode(video=0)]
    assert np.abs(frames.astype(int) - np.stack([expected[i] for i in (0, 62, 124)])).mean() < 2
