import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from pvvae_plugin.cli.converters import realestate10k as converter
from pvvae_plugin.datasets import ClipIndex, VideoDataset
from pvvae_plugin.registry import DATASETS

ROOT = Path(__file__).resolve().parents[3]
HOUSE, FLAT, GONE = 'house_-0001', '-flat_00002', 'gone0000003'


@pytest.fixture(scope='module')
def video(tmp_path_factory):
    """70 frames at 25 a second; frame ``t`` is gray ``3 * t``."""
    path = str(tmp_path_factory.mktemp('video') / 'video.avi')
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*'MJPG'), 25, (32, 32))
    for t in range(70):
        writer.write(np.full((32, 32, 3), 3 * t, np.uint8))
    writer.release()
    return Path(path).read_bytes()


@pytest.fixture
def data(tmp_path, video):
    """Two videos; each split has a segment of either and one of a video that is not there."""
    (tmp_path / 'videos').mkdir()
    (tmp_path / 'videos' / f'{HOUSE}.avi').write_bytes(video)
    (tmp_path / 'videos' / f'{FLAT}.MKV').write_bytes(video)
    for split, first in (('train', 10), ('test', 40)):
        camera(tmp_path, f'{split}/a.txt', HOUSE, range(first, first + 20))
        camera(tmp_path, f'{split}/b.txt', FLAT, range(first + 5, first + 25))
        camera(tmp_path, f'{split}/c.txt', GONE, range(first, first + 20))
    return tmp_path


def camera(root, name, video, frames, **changes):
    """A camera file. ``changes``: line number -> text in its place."""
    path = root / 'cameras' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pose = '0.5 0.9 0.5 0.5 0.0 0.0 1.0 0.0 -1e-3 0.0 0.0 1.0 0.0 0.0 0.0 0.0 1.0 0.0'
    lines = [f'https://www.youtube.com/watch?v={video}', *(f'{t * 40000} {pose}' for t in frames)]
    for number, text in changes.items():
        lines[int(number.strip('l')) - 1] = text
    path.write_text('\n'.join(lines) + '\n')


def run(converter, data, *more):
    folders = {'--cameras': 'cameras', '--videos': 'videos', '--out': '.'}
    return converter.main([text for name, folder in folders.items() for text in (name, str(data / folder))] + [*more])


def test_lists_hold_the_segments_that_are_there(data, capsys):
    assert run(converter, data, '--decode') == 0
    text, progress = capsys.readouterr()
    assert text.count('sequences: 3\n') == text.count('videos: 3\n') == 2
    assert text.count(f'videos missing, with 1 sequences: 1\n  {GONE}\n') == 2
    assert text.count('unreadable, skipped: 0') == text.count(': 2 segments from 2 videos') == 2
    assert '2/2' in progress
    assert 'ETA' in progress
    assert 'both lists written' in text
    expected = f'path,start,end\n{HOUSE}.avi,0.400000,1.160000\n{FLAT}.MKV,0.600000,1.360000\n'
    assert (data / 'train.csv').read_text() == expected


def test_clips_of_the_lists_lie_within_the_cameras(data):
    run(converter, data)
    for split, first in (('train', 10), ('test', 40)):
        dataset = VideoDataset(str(data / 'videos'), 17, ann_file=str(data / f'{split}.csv'))
        for index, frames in ((0, range(first, first + 20)), (1, range(first + 5, first + 25))):
            for key in range(15):
                clip = dataset[ClipIndex(index, key)]['frames']
                shown = np.rint(clip.mean((1, 2, 3)) / 3).astype(int).tolist()
                assert shown == list(range(shown[0], shown[0] + 17))
                assert shown[0] >= frames[0]
                assert shown[-1] <= frames[-1]


def test_the_config_reads_what_was_written(data, monkeypatch):
    (data / 'data').mkdir()
    (data / 'data' / 'realestate10k').symlink_to(data)
    run(converter, data)
    monkeypatch.chdir(data)
    config = Config.fromfile(ROOT / 'configs' / '_base_' / 'realestate10k.py')
    for loader, first in ((config.train_dataloader, 10), (config.val_dataloader, 40)):
        sample = DATASETS.build(loader.dataset)[0]
        assert sample['inputs'].shape == (3, 17, 256, 256)
        assert sample['data_samples'].metainfo['label'] is None
        shown = sample['inputs'].float().mean((0, 2, 3)) / 3
        assert first - 0.5 < shown.min() < shown.max() < first + 19.5
    assert 'num_observed_groups' not in sample['data_samples'].metainfo


@pytest.mark.parametrize(
    ('number', 'line'),
    [
        (1, 'https://www.youtube.com/watch?v=../../secret'),
        (1, 'https://www.youtube.com/watch?v=/etc/passwd'),
        (1, 'https://www.youtube.com/watch?v=short'),
        (1, f'https://elsewhere.org/watch?v={HOUSE}'),
        (1, ''),
        (4, '120000 0.5'),
        (4, '1.2e5' + 18 * ' 0.5'),
        (4, '-5' + 18 * ' 0.5'),
        (4, '²' + 18 * ' 0.5'),
        (4, '480000' + 17 * ' 0.5' + ' nan'),
        (4, '480000' + 17 * ' 0.5' + ' x'),
        (4, '400000' + 18 * ' 0.5'),
    ],
)
def test_malformed_camera_files_are_named_with_their_line(data, capsys, number, line):
    camera(data, 'train/a.txt', HOUSE, range(10, 30), **{f'l{number}': line})
    assert run(converter, data) == 0
    assert f'malformed camera files, skipped: 1\n  train/a.txt: line {number}: ' in capsys.readouterr().out
    assert (data / 'train.csv').read_text().splitlines()[1:] == [f'{FLAT}.MKV,0.600000,1.360000']


def test_a_camera_file_that_is_no_text_or_empty(data, capsys):
    (data / 'cameras' / 'train' / 'a.txt').write_bytes(bytes(range(256)))
    (data / 'cameras' / 'train' / 'c.txt').write_bytes(b'')
    (data / 'cameras' / 'train' / '._b.txt').write_bytes(b'left by macOS')
    assert run(converter, data) == 0
    text = capsys.readouterr().out
    assert 'skipped: 2\n  train/a.txt: line 1: ' in text
    assert '._b.txt' not in text


def test_short_sequences_and_duplicates_are_left_out(data, capsys):
    camera(data, 'train/d.txt', HOUSE, range(50, 66))
    camera(data, 'train/e.txt', HOUSE, range(50, 67))
    camera(data, 'train/f.txt', HOUSE, range(50, 67))
    camera(data, 'train/a.txt', HOUSE, range(40, 60))  # the segment, and the name, of test/a.txt
    assert run(converter, data) == 0
    text = capsys.readouterr().out
    assert 'shorter than 17 frames, skipped: 1\n  train/d.txt: 16\n' in text
    assert 'duplicates, skipped: 2\n  train/a.txt is test/a.txt\n  train/f.txt is train/e.txt\n' in text
    assert (data / 'train.csv').read_text().count(HOUSE) == 1
    assert (data / 'test.csv').read_text().count(HOUSE) == 1


def test_only_files_named_by_an_id_are_videos(data, capsys, video):
    folder = data / 'videos'
    for name in (f'{HOUSE}.mp4', f'{GONE}.txt', f'{GONE}.mp4.part', f'{GONE}.f137.mp4', f'._{GONE}.mp4'):
        (folder / name).write_bytes(video)
    (folder / f'{GONE}.webm').mkdir()
    (folder / f'{GONE}.mp4').symlink_to(folder / f'{GONE}.mp4')
    (folder / '00000000000.mp4').write_bytes(video)
    assert run(converter, data) == 0
    text = capsys.readouterr().out
    assert 'videos named by YouTube id: 3\n' in text
    assert f'videos found more than once: 1\n  {HOUSE}.mp4, {HOUSE}.avi is used\n' in text
    assert 'videos without a sequence: 1\n  00000000000.mp4\n' in text
    assert GONE not in (data / 'train.csv').read_text()


def test_decode_leaves_out_what_cannot_be_read(data, capsys):
    camera(data, 'train/d.txt', HOUSE, range(60, 90))  # 10 frames are there
    camera(data, 'train/e.txt', HOUSE, range(50, 80))  # 20 are there, the last ones are not
    camera(data, 'train/f.txt', HOUSE, range(100, 130))
    camera(data, 'train/g.txt', HOUSE, range(50, 71))  # one frame less than cameras
    (data / 'videos' / f'{FLAT}.MKV').write_bytes(b'nothing')
    assert run(converter, data, '--decode') == 0
    text = capsys.readouterr().out
    assert 'unreadable, skipped: 4\n' in text
    assert f'  train/b.txt of {FLAT}.MKV: ' in text
    assert f'  train/d.txt of {HOUSE}.avi: 10 frames from 2.4 to 3.56 s, 17 are needed\n' in text
    assert f'  train/e.txt of {HOUSE}.avi: no frame from ' in text
    assert 'the last frame of the video is at 2.760 s' in text
    lines = (data / 'train.csv').read_text().splitlines()
    assert lines[1:] == [f'{HOUSE}.avi,0.400000,1.160000', f'{HOUSE}.avi,2.000000,2.800000']


def test_many_names_are_cut_short(data, capsys):
    for i in range(12):
        camera(data, f'train/x{i:02d}.txt', f'missing{i:04d}', range(20))
    run(converter, data)
    assert 'missing, with 13 sequences: 13\n' in (text := capsys.readouterr().out)
    assert '  missing0008\n  ... and 3 more\n' in text


def test_exit_code_1_without_both_lists(data, capsys):
    for name in ('a', 'b'):
        (data / 'cameras' / 'test' / f'{name}.txt').unlink()
    assert run(converter, data) == 1
    text = capsys.readouterr().out
    assert 'test.csv not written: no segment is left' in text
    assert 'INCOMPLETE' in text
    assert (data / 'train.csv').is_file()
    assert not (data / 'test.csv').exists()


def test_folders_missing(data, capsys):
    assert run(converter, data, '--out', str(data / 'cameras' / 'test' / 'a.txt')) == 1
    assert 'cannot create --out' in capsys.readouterr().out
    (data / 'cameras' / 'test').rename(data / 'cameras' / 'validation')
    assert run(converter, data) == 1
    assert f'not a folder: {data / "cameras" / "test"}.' in capsys.readouterr().out
    assert run(converter, data, '--videos', str(data / 'nowhere')) == 1
    assert 'nowhere' in capsys.readouterr().out
    assert not (data / 'train.csv').exists()


def test_names_are_shown_as_a_terminal_may_show_them(data, capsys):
    try:
        for name in (b'\x1b[2J.txt', b'bad\xff.txt', b'$(touch x).txt'):
            Path(os.fsdecode(os.fsencode(data / 'cameras' / 'train') + b'/' + name)).write_text('no address\n')
    except OSError:
        pytest.skip('this file system keeps no such names')
    assert run(converter, data) == 0
    text = capsys.readouterr().out
    assert '\x1b' not in text
    assert "'train/\\x1b[2J.txt': line 1" in text
    assert "'train/bad\\udcff.txt': line 1" in text
    assert '  train/$(touch x).txt: line 1' in text
    text.encode()


def test_files_that_are_not_used_are_counted_and_named(data, capsys):
    (data / 'videos' / 'holiday.mp4').write_bytes(b'x')
    (data / 'videos' / f'{GONE}.dav').write_bytes(b'x')
    (data / 'videos' / '.hidden').write_bytes(b'x')
    assert run(converter, data) == 0
    expected = f'other files, not named by a YouTube id or not videos: 2\n  {GONE}.dav\n  holiday.mp4\n'
    assert expected in capsys.readouterr().out
