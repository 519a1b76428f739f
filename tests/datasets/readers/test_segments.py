"""Clips of segments, checked by videos whose frames show their own number."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from pvvae_plugin.datasets import ClipError, ClipIndex, VideoDataset, open_video, read_clip
from pvvae_plugin.datasets.readers.base import find_segment, seconds_from_first

REAL_DATA = Path(os.environ.get('PVVAE_TEST_DATA') or Path(__file__).resolve().parents[3] / '..' / 'shared' / 'data')
BACKENDS = ['decord', 'opencv']


def write_numbered(path, num_frames=50, fps=25.0, fourcc='MJPG'):
    """Frame ``t`` shows ``t % 16`` in its left half and ``t // 16`` in its right half, as gray in steps of 16."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*fourcc), fps, (32, 32))
    for t in range(num_frames):
        frame = np.empty((32, 32, 3), np.uint8)
        frame[:, :16], frame[:, 16:] = 16 * (t % 16), 16 * (t // 16)
        writer.write(frame)
    writer.release()
    return str(path)


def numbers_of(frames):
    """The numbers that frames ``(T, H, W, 3)`` show."""
    left, right = (frames[:, 4:28, half].mean((1, 2, 3)) / 16 for half in (slice(4, 12), slice(20, 28)))
    return [int(low) + 16 * int(high) for low, high in zip(np.rint(left), np.rint(right), strict=True)]


def set_durations(path, runs):
    """Give the frames of an .mp4 other durations: ``runs`` of (number of frames, ticks)."""
    data = bytearray(Path(path).read_bytes())
    at = data.index(b'stts', data.index(b'moov'))  # size, 'stts', flags, number of runs, then the runs
    assert int.from_bytes(data[at + 8 : at + 12], 'big') == 1
    table = b''.join(value.to_bytes(4, 'big') for value in (len(runs), *sum(runs, ())))
    data[at + 8 : at + 20] = table
    for box in (b'moov', b'trak', b'mdia', b'minf', b'stbl', b'stts'):
        size = data.rindex(box, 0, at + 4) - 4
        data[size : size + 4] = (int.from_bytes(data[size : size + 4], 'big') + len(table) - 12).to_bytes(4, 'big')
    Path(path).write_bytes(data)


def build(root, rows, header='path,start,end', clip_len=5, **kwargs):
    (root / 'list.csv').write_text('\n'.join([header, *rows]), encoding='utf-8')
    return VideoDataset(data_root=str(root), clip_len=clip_len, ann_file='list.csv', **kwargs)


def starts_of(dataset, num_draws, index=0):
    """First frames of clips under different keys, after a check that the others follow."""
    starts = set()
    for key in range(num_draws):
        shown = numbers_of(dataset[ClipIndex(index, key)]['frames'])
        assert shown == list(range(shown[0], shown[0] + 5 * dataset.frame_interval, dataset.frame_interval))
        starts.add(shown[0])
    return starts


@pytest.mark.parametrize('backend', BACKENDS)
def test_clips_lie_within_their_segment(tmp_path, backend):
    write_numbered(tmp_path / 'a.avi')
    # 25 frames a second: frames 10 to 20, then 30 to 42.
    dataset = build(tmp_path, ['a.avi,0.4,0.8', 'a.avi,1.2,1.68'], backend=backend)
    assert starts_of(dataset, 60) == set(range(10, 17))
    assert starts_of(dataset, 70, index=1) == set(range(30, 39))
    # Between frames: 11 (at 0.44) is the first after 0.42, 19 (at 0.76) the last before 0.79.
    assert starts_of(build(tmp_path, ['a.avi,0.42,0.79'], backend=backend), 50) == set(range(11, 16))
    assert starts_of(build(tmp_path, ['a.avi,0.4,0.8'], backend=backend, frame_interval=2), 30) == {10, 11, 12}


@pytest.mark.parametrize('backend', BACKENDS)
def test_the_middle_of_the_segment_in_test_mode(tmp_path, backend):
    write_numbered(tmp_path / 'a.avi')
    dataset = build(tmp_path, ['a.avi,0.4,0.8'], test_mode=True, backend=backend)
    assert numbers_of(dataset[0]['frames']) == [13, 14, 15, 16, 17]


@pytest.mark.parametrize('backend', BACKENDS)
def test_variable_frame_rate(tmp_path, backend):
    path = write_numbered(tmp_path / 'a.mp4', num_frames=40, fourcc='mp4v')
    set_durations(path, [(20, 256), (20, 768)])  # 1/12800 s each: 50 frames a second, then 16.7
    np.testing.assert_allclose(
        open_video(path, backend).times, [*np.arange(20) * 0.02, *(0.4 + np.arange(20) * 0.06)], atol=1e-6
    )
    # From 0.3 s, frame 15, to 0.7 s, frame 25: by the average rate these would be 8 and 17.
    assert starts_of(build(tmp_path, ['a.mp4,0.3,0.7'], backend=backend), 60) == set(range(15, 22))


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize(('name', 'fourcc'), [('a.webm', 'VP80'), ('a.mp4', 'mp4v')])
def test_times_are_as_good_as_the_container_keeps_them(tmp_path, backend, name, fourcc):
    """WebM rounds to milliseconds, and frame 10's time, 0.333667, must still find it."""
    path = write_numbered(tmp_path / name, num_frames=40, fps=30000 / 1001, fourcc=fourcc)
    frames, _ = read_clip(path, range, backend, segment=(10 * 1.001 / 30, 14 * 1.001 / 30))
    assert numbers_of(frames) == [10, 11, 12, 13, 14]


@pytest.mark.parametrize('backend', BACKENDS)
def test_what_lies_past_the_end_of_the_video_is_not_there(tmp_path, backend):
    path = write_numbered(tmp_path / 'a.avi')
    assert starts_of(build(tmp_path, ['a.avi,1.6,99'], backend=backend), 50) == set(range(40, 46))
    with pytest.raises(ClipError, match=r'no frame from 2.5 to 99 s; the last frame of the video is at 1\.960 s'):
        read_clip(path, range, backend, segment=(2.5, 99))


def test_the_draw_is_that_of_a_whole_video(tmp_path):
    write_numbered(tmp_path / 'a.avi')
    (tmp_path / 'list.txt').write_text('a.avi\n')
    whole = VideoDataset(data_root=str(tmp_path), clip_len=5, ann_file='list.txt')
    segment = build(tmp_path, ['a.avi,0,9'])
    assert whole[ClipIndex(0, 1)]['path'] == str(tmp_path / 'a.avi')
    for key in range(10):
        np.testing.assert_array_equal(whole[ClipIndex(0, key)]['frames'], segment[ClipIndex(0, key)]['frames'])


def test_segments_of_one_video_are_told_apart(tmp_path, warnings_of):
    """Too short, past the end, whole, and of a missing file: each has a name of its own."""
    path = write_numbered(tmp_path / 'a.avi')
    names = [f'{path}#t=0.4,0.48', f'{path}#t=5.0,6.0', f'{path}#t=1.0,1.5', f'{tmp_path / "gone.avi"}#t=1.0,1.5']
    dataset = build(tmp_path, ['a.avi,0.4,0.48', 'a.avi,5,6', 'a.avi,1,1.5', 'gone.avi,1,1.5'])
    assert [dataset.get_data_info(i)['path'] for i in range(4)] == names
    for index in (0, 1, 3):
        sample = dataset[ClipIndex(index, index)]
        assert sample['path'] == names[2]
        assert sample['substituted_path'] == names[index]
        assert min(numbers_of(sample['frames'])) >= 25
    assert 'substituted_path' not in dataset[2]
    assert list(dataset.skipped) == [names[0], names[1], names[3]]
    assert dataset.skipped[names[0]] == '3 frames, but 5 at an interval of 1 need 5'
    assert 'no frame from 5.0 to 6.0 s' in dataset.skipped[names[1]]
    assert dataset.skipped[names[3]] == 'no such file'
    assert len(warnings_of) == 3


def test_what_a_list_may_look_like(tmp_path):
    """As a spreadsheet may save it: a byte order mark, CRLF, quotes, blank lines and spaces; and labels."""
    write_numbered(tmp_path / 'walk, fast.avi')
    content = '\ufeffpath,start,end,label\r\n\r\n"walk, fast.avi", 0.4 ,1e0, 1\r\n"walk, fast.avi",0,1,0\r\n\r\n'
    (tmp_path / 'list.CSV').write_bytes(content.encode())
    dataset = VideoDataset(data_root=str(tmp_path), clip_len=5, ann_file='list.CSV')
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    assert [(info['segment'], info['label']) for info in infos] == [((0.4, 1.0), 1), ((0.0, 1.0), 0)]
    assert dataset[0]['label'] == 1
    assert build(tmp_path, ['"walk, fast.avi",0,1']).get_data_info(0)['label'] is None


def test_labels_by_class_folder(tmp_path):
    for name in ('Archery', 'Zoo'):
        write_numbered(tmp_path / name / 'a.avi')
    (tmp_path / 'classes.txt').write_text('1 Archery\n2 Zoo\n')
    dataset = build(tmp_path, ['Zoo/a.avi,0,1', 'Archery/a.avi,0,1'], class_file='classes.txt')
    assert [dataset.get_data_info(i)['label'] for i in range(2)] == [1, 0]
    with pytest.raises(ValueError, match='line 2 of .*list.csv.*Zoo is number 2'):
        build(tmp_path, ['Zoo/a.avi,0,1,1'], 'path,start,end,label', class_file='classes.txt')


@pytest.mark.parametrize(
    ('row', 'message'),
    [
        ('a.avi,1', 'got 2 values, expected 3'),
        ('a, b.avi,1,2', 'got 4 values, expected 3 .*quote paths'),
        ('a.avi,,2', 'start must not be empty'),
        (',1,', 'path and end must not be empty'),
        (',,', 'path and start and end must not be empty'),
        ('a.avi,2,1', 'start 2 and end 1 must be seconds with 0 <= start < end'),
        ('a.avi,1,1', 'start 1 and end 1 must be seconds'),
        ('a.avi,-1,1', 'start -1 and end 1 must be seconds'),
        ('a.avi,0:01,0:02', 'start 0:01 and end 0:02 must be seconds'),
        ('a.avi,0,inf', 'end inf must be seconds'),
        ('a.avi,nan,1', 'start nan and end 1 must be seconds'),
        ('"a.avi,1,2', 'is not comma-separated'),
    ],
)
def test_wrong_rows(tmp_path, row, message):
    write_numbered(tmp_path / 'a.avi', num_frames=6)
    with pytest.raises(ValueError, match=f'line 3 of .*list.csv.*{message}'):
        build(tmp_path, ['a.avi,0,1', row])


@pytest.mark.parametrize(
    ('label', 'message'), [('', 'label must not be empty'), ('walk', "'walk' is not a whole"), ('-1', 'out of range')]
)
def test_wrong_labels(tmp_path, label, message):
    with pytest.raises(ValueError, match=f'line 2 of .*{message}'):
        build(tmp_path, [f'a.avi,0,1,{label}'], 'path,start,end,label')


def test_wrong_lists(tmp_path):
    for header in ('a.avi 3', 'path,end,start', 'path;start;end', 'path,start,end,fps'):
        message = 'line 1 of .*"path,start,end" or "path,start,end,label".*e.g. to list.txt'
        with pytest.raises(ValueError, match=message):
            build(tmp_path, ['a.avi,0,1'], header)
    with pytest.raises(ValueError, match='lists no clip; give one segment per line below "path,start,end"'):
        build(tmp_path, [''])
    with pytest.raises(FileNotFoundError, match='none of the 1 files .*list.csv exists, e.g. .*a.avi; paths'):
        build(tmp_path, ['a.avi,0,1', 'a.avi,1,2'])
    with pytest.raises(ValueError, match='clip_len must be 1 for images, got 5.*b.png'):
        cv2.imwrite(str(tmp_path / 'b.png'), np.zeros((8, 8, 3), np.uint8))
        build(tmp_path, ['b.png,0,1'])


def test_times_are_counted_from_the_first_frame_and_must_increase():
    np.testing.assert_allclose(seconds_from_first('a', np.float32([7.0, 7.5, 8.5])), [0, 0.5, 1.5])
    for times in ([0.0, 0.0, 0.0], [0.0, 0.04, 0.0], [0.0, np.nan, 1.0]):
        with pytest.raises(ClipError, match='need increasing frame times'):
            seconds_from_first('a', np.array(times))


def test_segments_of_a_video_of_one_frame():
    assert find_segment('a', np.zeros(1), 0.0, 1.0) == (0, 1)
    with pytest.raises(ClipError, match=r'no frame from 0\.5'):
        find_segment('a', np.zeros(1), 0.5, 1.0)


@pytest.mark.skipif(not (REAL_DATA / 'odd_videos').is_dir(), reason=f'no real footage in {REAL_DATA} (PVVAE_TEST_DATA)')
@pytest.mark.parametrize('name', ['tree.avi', 'b.avi', 'h264_10bits.mp4'])
def test_decoders_agree_on_the_times_of_odd_files(name):
    """The first two skip frames: their rate varies."""
    first, second = (open_video(str(REAL_DATA / 'odd_videos' / name), backend).times for backend in BACKENDS)
    np.testing.assert_allclose(first, second, atol=1e-4)
