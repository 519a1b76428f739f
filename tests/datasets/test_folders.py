"""Folders are read whole, or what is left out is counted and named."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from pvvae_plugin.cli import verify
from pvvae_plugin.datasets import ClipError, VideoDataset, open_video, read_clip
from pvvae_plugin.datasets.readers.base import IMAGE_EXTENSIONS, VIDEO_EXTENSIONS
from pvvae_plugin.sampling import find_sources
from pvvae_plugin.visualization import write_gif

try:
    import av  # before decord, whose libvpx breaks the one of PyAV's encoder
except ImportError:
    av = None

# Container and codec of each extension, for PyAV. Those that FFmpeg derives from the extension are omitted.
FORMATS = {
    '.264': ('h264', 'h264'),
    '.265': ('hevc', 'hevc'),
    '.3g2': (None, 'mpeg4'),
    '.3gp': (None, 'mpeg4'),
    '.apng': ('apng', 'apng'),
    '.asf': (None, 'wmv2'),
    '.avi': (None, 'mpeg4'),
    '.divx': ('avi', 'mpeg4'),
    '.f4v': (None, 'h264'),
    '.flv': (None, 'flv1'),
    '.gif': (None, 'gif'),
    '.gxf': (None, 'mpeg2video'),
    '.h264': ('h264', 'h264'),
    '.h265': ('hevc', 'hevc'),
    '.hevc': ('hevc', 'hevc'),
    '.ivf': (None, 'vp8'),
    '.m1v': ('mpeg1video', 'mpeg1video'),
    '.m2p': ('vob', 'mpeg2video'),
    '.m2t': ('mpegts', 'mpeg2video'),
    '.m2ts': (None, 'mpeg2video'),
    '.m2v': ('mpeg2video', 'mpeg2video'),
    '.m4v': ('mp4', 'mpeg4'),
    '.mj2': ('mov', 'jpeg2000'),
    '.mjpeg': ('mjpeg', 'mjpeg'),
    '.mjpg': ('mjpeg', 'mjpeg'),
    '.mk3d': ('matroska', 'mpeg4'),
    '.mkv': (None, 'mpeg4'),
    '.mov': (None, 'mpeg4'),
    '.mp4': (None, 'mpeg4'),
    '.mpe': ('mpeg', 'mpeg1video'),
    '.mpeg': ('mpeg', 'mpeg1video'),
    '.mpg': ('mpeg', 'mpeg1video'),
    '.mpv': ('mpeg', 'mpeg1video'),
    '.mts': ('mpegts', 'h264'),
    '.mxf': (None, 'mpeg2video'),
    '.nut': (None, 'mpeg4'),
    '.ogm': ('ogg', 'libvpx'),
    '.ogv': ('ogg', 'libvpx'),
    '.qt': ('mov', 'mpeg4'),
    '.rm': (None, 'rv10'),
    '.rmvb': ('rm', 'rv10'),
    '.ts': ('mpegts', 'mpeg2video'),
    '.vob': (None, 'mpeg2video'),
    '.webm': (None, 'vp8'),
    '.wmv': ('asf', 'wmv2'),
    '.wtv': (None, 'mpeg2video'),
    '.y4m': ('yuv4mpegpipe', 'rawvideo'),
}
COLORS = {'.gif': 'rgb8', '.apng': 'rgb24', '.mjpeg': 'yuvj420p', '.mjpg': 'yuvj420p'}


def write_container(path, num_frames=9):
    """Write a video of which frame t has 2 + 8 * t red columns."""
    if av is None:
        pytest.skip('PyAV writes the files')
    container_format, codec = FORMATS[path.suffix]
    width, height = (720, 576) if path.suffix in ('.gxf', '.mxf') else (96, 64)
    with av.open(str(path), 'w', format=container_format) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height = width, height
        stream.pix_fmt = COLORS.get(path.suffix, 'yuv420p')
        for t in range(num_frames):
            frame = np.zeros((height, width, 3), np.uint8)
            frame[:, : (2 + 8 * t) * width // 96] = (230, 20, 10)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
        container.mux(stream.encode())


def test_every_extension_is_tested_and_documented():
    assert tuple(FORMATS) == VIDEO_EXTENSIONS
    document = (Path(__file__).resolve().parents[2] / 'docs' / 'data.md').read_text()
    section = document.partition('### Supported files')[2].partition('Other files')[0]
    assert re.findall(r'\.\w+', section) == [*VIDEO_EXTENSIONS, *IMAGE_EXTENSIONS]


@pytest.mark.parametrize('extension', FORMATS)
def test_every_container_of_the_list_is_read(tmp_path, extension):
    path = tmp_path / f'a{extension}'
    write_container(path)
    assert len(VideoDataset(str(tmp_path), clip_len=9)) == 1
    frames, fps = read_clip(str(path), lambda num_frames: range(num_frames))
    assert len(frames) == 9 and fps > 0
    red = (frames[:, frames.shape[1] // 2, :, 0] > 115).mean(1) * 96
    assert np.abs(red - (2 + 8 * np.arange(9))).max() < 4


def test_a_gif_that_we_write_is_a_video(tmp_path):
    frames = np.zeros((9, 32, 48, 3), np.uint8)
    for t in range(9):
        frames[t, :, : 5 * t] = 255
    write_gif(tmp_path / 'a.gif', frames, fps=8)
    sample = VideoDataset(str(tmp_path), clip_len=9)[0]
    assert np.abs(sample['frames'].astype(int) - frames).mean() < 2 and sample['fps'] == pytest.approx(8, abs=0.4)
    assert find_sources(str(tmp_path)) == [str(tmp_path / 'a.gif')]


@pytest.fixture
def mixed(tmp_path, write_video):
    """Two videos that are read; and what is not, all in class folders."""
    for name in ('a/1.mp4', 'b/2.avi'):
        write_video(tmp_path / name, fourcc='MJPG' if name.endswith('avi') else 'mp4v')
    for name in ('a/1.dav', 'a/2.dav', 'b/3.braw', 'b/no_extension'):
        (tmp_path / name).write_bytes(bytes(range(256)))
    (tmp_path / 'frames').mkdir()
    for t in range(3):
        Image.new('RGB', (32, 32)).save(tmp_path / 'frames' / f'{t:05d}.png')
    (tmp_path / 'b' / 'link.mp4').symlink_to(tmp_path / 'moved.mp4')
    for name in ('a/labels.json', 'README', '.DS_Store', 'a/._1.mp4'):  # belong next to videos
        (tmp_path / name).write_text('{}\n')
    return tmp_path


def test_what_is_left_out_is_counted_and_named(mixed, monkeypatch):
    said = []
    monkeypatch.setattr('pvvae_plugin.datasets.video_dataset.print_log', lambda text, **_: said.append(text))
    dataset = VideoDataset(str(mixed), clip_len=5)
    assert len(dataset) == 2
    (text,) = said
    assert '2 .dav' in text and '1 .braw' in text and '1 without extension' in text
    assert '3 .png (e.g. frames/00000.png)' in text and 'clip_len=1' in text and 'ffmpeg' in text
    assert '1 .mp4 (e.g. b/link.mp4): not a regular file' in text
    assert '1 folders without a clip (e.g. frames)' in text
    assert 'labels' not in text and 'README' not in text and '._1' not in text


def test_verify_counts_what_is_left_out(mixed, capsys, tmp_path):
    report = tmp_path / '.report.json'
    assert verify.main([str(mixed), '--clip-len', '5', '--workers', '1', '--out', str(report)]) == 1
    out = capsys.readouterr().out
    assert 'good: 2 of 11' in out and 'left out: 9' in out and '2 .dav' in out
    assert '"left out": 9' in report.read_text()


def test_a_folder_that_is_read_whole_is_good(tmp_path, write_video, capsys):
    write_video(tmp_path / 'a.mp4')
    (tmp_path / 'list.txt').write_text('a.mp4\n')
    assert verify.main([str(tmp_path), '--clip-len', '5', '--workers', '1']) == 0
    assert 'good: 1 of 1' in capsys.readouterr().out


@pytest.mark.parametrize('nested', ['b/sub/2.mp4', 'a/sub/deep/2.mp4'])
def test_nested_videos_are_rejected(tmp_path, write_video, nested, capsys):
    write_video(tmp_path / 'a/1.mp4')
    write_video(tmp_path / nested)
    with pytest.raises(ValueError, match=f'1 videos.*nested.*{nested}.*ann_file'):
        VideoDataset(str(tmp_path), clip_len=5)
    assert verify.main([str(tmp_path), '--clip-len', '5', '--workers', '1']) == 1
    assert nested in capsys.readouterr().err


def test_if_nothing_is_found_what_is_there_is_named(tmp_path, write_video):
    (tmp_path / 'a').mkdir()
    (tmp_path / 'a' / '1.dav').write_bytes(bytes(99))
    with pytest.raises(ValueError, match='no videos in .*1 .dav'):
        VideoDataset(str(tmp_path), clip_len=5)
    write_video(tmp_path / 'split' / 'class' / 'b.mp4')
    with pytest.raises(ValueError, match='no videos in .*split/class/b.mp4'):
        VideoDataset(str(tmp_path), clip_len=5)


def test_a_folder_of_frames_is_named_where_one_video_is_wanted(tmp_path):
    Image.new('RGB', (32, 32)).save(tmp_path / '00000.png')
    with pytest.raises(ClipError, match='not a file: a folder.*ffmpeg'):
        open_video(str(tmp_path))


def test_an_animated_image_is_not_read_as_one_frame(tmp_path):
    frames = [Image.new('RGB', (32, 32), (60 * t, 0, 0)) for t in range(4)]
    frames[0].save(tmp_path / 'a.webp', save_all=True, append_images=frames[1:])
    with pytest.raises(ClipError, match='animation of 4 frames.*gif'):
        open_video(str(tmp_path / 'a.webp'))
    cv2.imwrite(str(tmp_path / 'b.webp'), np.zeros((32, 32, 3), np.uint8))
    assert len(open_video(str(tmp_path / 'b.webp'))) == 1


def test_first_frames_name_what_they_leave_out(mixed, monkeypatch):
    said = []
    monkeypatch.setattr('pvvae_plugin.sampling.first_frames.print_log', lambda text, **_: said.append(text))
    assert find_sources(str(mixed / 'a')) == [str(mixed / 'a' / '1.mp4')]
    assert '2 .dav' in said[0]


def test_listed_files_that_do_not_exist_are_counted(tmp_path, write_video, monkeypatch):
    said = []
    monkeypatch.setattr('pvvae_plugin.datasets.video_dataset.print_log', lambda text, **_: said.append(text))
    write_video(tmp_path / 'a.mp4')
    for names in (['a.mp4'], ['a.mp4', 'b.mp4', 'c.mp4']):
        (tmp_path / 'list.txt').write_text('\n'.join(names))
        VideoDataset(str(tmp_path), clip_len=5, ann_file='list.txt')
    assert len(said) == 1 and '2 of 3 files' in said[0] and 'b.mp4' in said[0]
