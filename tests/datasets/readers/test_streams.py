"""Files whose packets are not one frame each of one video stream."""

import numpy as np
import pytest

from pvvae_plugin.datasets import ClipError, open_video
from pvvae_plugin.datasets.checking.verification import Entry, check_file
from pvvae_plugin.datasets.readers import OpenCVReader, PyAVReader

av = pytest.importorskip('av')


def write_streams(path, num=2):
    """Videos in one file: the first is gray, the others, with more bits per second, are noise."""
    rng = np.random.default_rng(0)
    with av.open(str(path), 'w') as container:
        streams = [container.add_stream('mpeg4', rate=25) for _ in range(num)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuv420p'
        for t in range(10):
            for stream in streams:
                frame = np.full((48, 64, 3), 20 * t, np.uint8)
                if stream.index:
                    frame = rng.integers(0, 255, frame.shape, dtype=np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
        for stream in streams:
            container.mux(stream.encode())


@pytest.mark.parametrize('extension', ['mp4', 'mov', 'mkv', 'avi', 'ts'])
def test_every_reader_reads_the_first_video_stream(tmp_path, extension):
    path = str(tmp_path / f'a.{extension}')
    write_streams(path)
    for reader in (open_video(path), OpenCVReader(path), PyAVReader(path)):
        assert len(reader) == 10
        frames = reader.read([2, 8])
        np.testing.assert_allclose(frames.mean((1, 2, 3)), [40, 160], atol=4)
        assert frames[0].std() < 4
    with pytest.raises(ClipError, match='decord would seek'):
        open_video(path, 'decord')
    (finding,) = check_file((path, [Entry(path, None, 5)]))
    assert finding.kind == 'good', finding


@pytest.mark.parametrize('extension', ['mp4', 'mov', 'mkv', 'webm'])
def test_one_stream_is_still_read_by_decord(tmp_path, extension, write_video):
    path = write_video(tmp_path / f'a.{extension}', fourcc='VP80' if extension == 'webm' else 'mp4v')
    assert len(open_video(path, 'decord')) == 20
