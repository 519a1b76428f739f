import builtins
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from pvvae_plugin.datasets import ClipError, open_video, read_clip
from pvvae_plugin.datasets.readers import packet_index

REAL_DATA = Path(os.environ.get('PVVAE_TEST_DATA') or Path(__file__).resolve().parents[3] / '..' / 'shared' / 'data')


def decoded(path):
    """All frames, by reading on from the first: the oracle."""
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (frame := capture.read())[0]:
        frames.append(frame[1][..., ::-1])
    return np.stack(frames)


@pytest.mark.parametrize('backend', ['decord', 'opencv'])
@pytest.mark.parametrize(('name', 'fourcc'), [('a.mp4', 'mp4v'), ('a.avi', 'XVID'), ('ü 名 100%d.avi', 'MJPG')])
def test_frames_are_those_of_sequential_decoding(tmp_path, write_video, backend, name, fourcc):
    path = write_video(tmp_path / name, num_frames=30, fourcc=fourcc)
    reader = open_video(path, backend)
    assert len(reader) == 30
    assert reader.fps == pytest.approx(25)
    indices = [7, 3, 29, 7]
    frames = reader.read(indices)
    assert frames.dtype == np.uint8
    # decord and OpenCV convert colors with different rounding.
    assert np.abs(frames.astype(int) - decoded(path)[indices]).mean() < 2
    assert frames[0, :, 0, 0].mean() > 200  # red, so RGB


@pytest.mark.parametrize('backend', ['decord', 'opencv'])
def test_reading_from_end_to_end(tmp_path, write_video, backend):
    path = write_video(tmp_path / 'a.mp4', num_frames=37)
    frames = list(open_video(path, backend))
    assert len(frames) == 37
    assert np.abs(np.stack(frames).astype(int) - decoded(path)).mean() < 2


@pytest.mark.parametrize('backend', ['auto', 'decord', 'opencv'])
@pytest.mark.parametrize('content', [b'', b'hello\n' * 100, bytes(range(256)) * 20])
def test_what_is_no_video(tmp_path, backend, content):
    path = tmp_path / 'broken.mp4'
    path.write_bytes(content)
    with pytest.raises(ClipError, match='broken.mp4') as error:
        open_video(str(path), backend)
    assert '\n' not in error.value.reason
    assert len(error.value.reason) < 500


@pytest.mark.parametrize('before', [b'', b'ID3\x04\x00\x00\x00\x00\x00\x0a' + bytes(10)])
def test_playlists_open_no_other_files(tmp_path, write_video, before):
    secret = write_video(tmp_path / 'secret.mp4', num_frames=20)
    lines = [
        '#EXTM3U',
        '#EXT-X-VERSION:3',
        '#EXT-X-TARGETDURATION:2',
        '#EXTINF:1.2,',
        f'file://{secret}',
        '#EXT-X-ENDLIST',
    ]
    (tmp_path / 'upload.mp4').write_bytes(before + '\n'.join(lines).encode())
    for backend in ('auto', 'decord', 'opencv'):
        with pytest.raises(ClipError, match='a playlist, which could open other files'):
            open_video(str(tmp_path / 'upload.mp4'), backend)


def test_missing_file_and_backend(tmp_path):
    with pytest.raises(ClipError, match='no such file'):
        open_video(str(tmp_path / 'a.mp4'))
    with pytest.raises(ValueError, match='decord, opencv'):
        open_video('a.mp4', 'pyav')


@pytest.mark.parametrize('backend', ['decord', 'opencv'])
def test_past_the_end(tmp_path, write_video, backend):
    reader = open_video(write_video(tmp_path / 'a.mp4', num_frames=5), backend)
    with pytest.raises(ClipError, match='a.mp4'):
        reader.read([3, 5])


@pytest.mark.parametrize('backend', ['auto', 'opencv'])
def test_a_header_that_lies(tmp_path, write_video, backend):
    path = tmp_path / 'a.avi'
    write_video(path, num_frames=10, fourcc='MJPG')
    data = bytearray(path.read_bytes())
    data[48:52] = (99).to_bytes(4, 'little')  # dwTotalFrames of the main header
    stream = data.index(b'strh')
    data[stream + 40 : stream + 44] = (99).to_bytes(4, 'little')  # dwLength of the stream
    path.write_bytes(data)
    reader = open_video(str(path), backend)
    assert len(reader) == 10
    assert len(reader.read([9])) == 1


def test_reading_falls_back_to_the_next_decoder(tmp_path, write_video, monkeypatch):
    path = write_video(tmp_path / 'a.mp4', num_frames=12)

    class Failing:
        """A decoder that opens everything, promises too much, and then fails."""

        fps = 0.0

        def __init__(self, path):
            self.path = path

        def __len__(self):
            return 99

        def read(self, indices):
            raise ClipError(self.path, 'decord: damaged')

    monkeypatch.setattr('pvvae_plugin.datasets.readers.DecordReader', Failing)
    frames, fps = read_clip(path, lambda n: [n - 1])
    np.testing.assert_array_equal(frames, decoded(path)[-1:])
    assert fps == pytest.approx(25)


def test_without_decord(tmp_path, write_video, monkeypatch):
    path = write_video(tmp_path / 'a.mp4')
    real_import = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == 'decord':
            raise ImportError('No module named decord')
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, '__import__', refuse)
    assert len(open_video(path)) == 20
    with pytest.raises(ImportError):
        open_video(path, 'decord')


def test_images(tmp_path):
    image = np.zeros((6, 9, 3), np.uint8)
    image[..., 0] = 200
    path = tmp_path / 'ä.png'
    cv2.imencode('.png', image[..., ::-1])[1].tofile(path)
    reader = open_video(str(path))
    assert len(reader) == 1
    np.testing.assert_array_equal(reader.read([0]), image[None])
    with pytest.raises(ClipError, match='only frame 0'):
        reader.read([0, 1])
    gray = tmp_path / 'gray.png'
    cv2.imencode('.png', image[..., 0])[1].tofile(gray)
    assert open_video(str(gray)).read([0]).shape == (1, 6, 9, 3)
    gray.write_bytes(b'no image')
    with pytest.raises(ClipError, match='not an image'):
        open_video(str(gray))


@pytest.mark.parametrize('kind', ['.jpg', '.png', '.tif', '.webp', '.bmp'])
def test_images_that_are_cut_off(tmp_path, kind):
    path = tmp_path / f'a{kind}'
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    whole = cv2.imencode(kind, image)[1].tobytes()
    path.write_bytes(whole + b'what cameras leave behind')
    assert open_video(str(path)).read([0]).shape == (1, 64, 64, 3)
    path.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(ClipError, match='not a'):
        open_video(str(path))


def test_frames_that_would_fill_the_memory(tmp_path, write_video, monkeypatch):
    assert packet_index.MAX_FRAME_PIXELS * 3 < 2**28  # bytes
    monkeypatch.setattr(packet_index, 'MAX_FRAME_PIXELS', 64 * 48)
    for size in ((64, 48), (66, 48)):
        paths = [write_video(tmp_path / f'{size[0]}.avi', size=size, fourcc='MJPG')]
        for kind in ('.jpg', '.png', '.bmp'):
            paths.append(str(tmp_path / f'{size[0]}{kind}'))
            cv2.imwrite(paths[-1], np.zeros((*size[::-1], 3), np.uint8))
        for path in paths:
            if size == (64, 48):
                assert len(open_video(path)) > 0
            else:
                with pytest.raises(ClipError, match='66 x 48 pixels per frame, more than MAX_FRAME_PIXELS=3072'):
                    open_video(path)


@pytest.mark.parametrize('kind', ['.mp4', '.png'])
def test_pipes_devices_and_folders_are_not_opened(tmp_path, kind):
    os.mkfifo(tmp_path / f'pipe{kind}')
    (tmp_path / f'device{kind}').symlink_to('/dev/zero')
    (tmp_path / f'folder{kind}').mkdir()
    for path in tmp_path.iterdir():
        with pytest.raises(ClipError, match='not a file: a folder, pipe or device'):
            open_video(str(path))


def test_an_index_is_read_once_for_a_file(tmp_path, write_video):
    path = write_video(tmp_path / 'a.mp4', num_frames=12)
    assert packet_index.read_index(path) == (12, 64, 48, None)
    assert packet_index.read_index(path) is packet_index.read_index(path)
    write_video(tmp_path / 'a.mp4', num_frames=7)
    assert packet_index.read_index(path).num_packets == 7
    assert len(open_video(path, 'decord')) == 7


def test_seeking_is_not_trusted_in_an_avi_with_a_damaged_index(tmp_path, write_video):
    path = tmp_path / 'a.avi'
    write_video(path, num_frames=30, fourcc='XVID')
    expected = decoded(path)
    assert open_video(str(path), 'decord')
    data = bytearray(path.read_bytes())
    data[data.rindex(b'idx1') + 8 + 20 * 16 + 9] ^= 1 << 2  # where frame 20 lies
    path.write_bytes(data)
    with pytest.raises(ClipError, match='decord would seek to other frames: its index is damaged'):
        open_video(str(path), 'decord')
    frames, _ = read_clip(str(path), lambda n: [n - 8, n - 1])
    assert np.abs(frames.astype(int) - expected[[22, 29]]).mean() < 2


@pytest.mark.skipif(not (REAL_DATA / 'odd_videos').is_dir(), reason=f'no real footage in {REAL_DATA} (PVVAE_TEST_DATA)')
@pytest.mark.parametrize(('name', 'num_frames'), [('tree.avi', 68), ('b.avi', 150), ('h264_10bits.mp4', 30)])
def test_odd_files(name, num_frames):
    path = REAL_DATA / 'odd_videos' / name
    expected = decoded(path)
    for backend in ('decord', 'opencv'):
        reader = open_video(str(path), backend)
        assert len(reader) == len(expected) == num_frames
        indices = [num_frames // 2, num_frames - 1]
        # 10-bit sources are brought to 8 bits with different rounding.
        assert np.abs(reader.read(indices).astype(int) - expected[indices]).mean() < 5


@pytest.mark.parametrize('backend', ['auto', 'opencv'])
def test_a_name_that_is_not_utf8_is_refused_before_ffmpeg_sees_it(tmp_path, write_video, backend):
    """FFmpeg inside OpenCV ends the whole process on it."""
    path = write_video(tmp_path / 'good.avi', num_frames=3, fourcc='MJPG')
    odd = os.fsdecode(os.path.join(os.fsencode(tmp_path), b'bad\xff.avi'))
    try:
        os.rename(path, odd)
    except OSError:
        pytest.skip('this file system keeps no such names')
    with pytest.raises(ClipError, match='UTF-8'):
        open_video(odd, backend)
