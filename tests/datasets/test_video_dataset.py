import cv2
import numpy as np
import pytest

from pvvae_plugin.datasets import ClipIndex, VideoDataset
from pvvae_plugin.registry import DATASETS


@pytest.fixture
def ucf101(tmp_path, write_video):
    """Three classes, two files each, and the official kind of lists."""
    names = ['Archery/v_Archery_g01_c01.avi', 'BabyCrawling/v_BabyCrawling_g01_c01.avi', 'Zoo/v_Zoo_g01_c01.avi']
    for name in names:
        write_video(tmp_path / 'videos' / name, fourcc='XVID')
    (tmp_path / 'classInd.txt').write_text('1 Archery\r\n2 BabyCrawling\r\n3 Zoo\r\n')
    (tmp_path / 'trainlist01.txt').write_text(''.join(f'{name} {i + 1}\n' for i, name in enumerate(names)))
    (tmp_path / 'testlist01.txt').write_text(''.join(f'{name}\n' for name in names[1:]) + '\n')
    return tmp_path


def build(root, name='videos', **kwargs):
    return VideoDataset(data_root=str(root / name), clip_len=kwargs.pop('clip_len', 5), **kwargs)


def labels(dataset):
    return [dataset.get_data_info(i)['label'] for i in range(len(dataset))]


def test_official_lists(ucf101, monkeypatch):
    class_file = str(ucf101 / 'classInd.txt')
    train = build(ucf101, ann_file=str(ucf101 / 'trainlist01.txt'), class_file=class_file)
    assert labels(train) == [0, 1, 2]
    assert train.metainfo['classes'] == ('Archery', 'BabyCrawling', 'Zoo')
    test = build(ucf101, ann_file=str(ucf101 / 'testlist01.txt'), class_file=class_file, test_mode=True)
    assert labels(test) == [1, 2]
    assert test[0]['frames'].shape == (5, 48, 64, 3)
    assert test[0]['fps'] == pytest.approx(25)
    # Lists beside the videos, as in the config, named from the working directory.
    monkeypatch.chdir(ucf101)
    config = {'type': 'VideoDataset', 'data_root': 'videos', 'ann_file': 'testlist01.txt', 'clip_len': 5}
    assert labels(DATASETS.build(config)) == [None, None]


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        ('Archery/v_Archery_g01_c01.avi 4', 'line 4.*label 4 is out of range'),
        ('Archery/v_Archery_g01_c01.avi 0', 'line 4.*label 0 is out of range'),
        ('Fencing/v.avi', "line 4.*'Fencing', is not among the 3 classes"),
    ],
)
def test_wrong_official_lists(ucf101, line, message):
    list_file = ucf101 / 'trainlist01.txt'
    list_file.write_text(list_file.read_text() + line)
    with pytest.raises(ValueError, match=message):
        build(ucf101, ann_file=str(list_file), class_file=str(ucf101 / 'classInd.txt'))


def test_lists_with_labels_from_zero(tmp_path, write_video):
    write_video(tmp_path / 'videos' / 'my first clip 3.mp4')
    write_video(tmp_path / 'videos' / 'b.mp4')
    list_file = tmp_path / 'videos' / 'list.txt'
    list_file.write_text('my first clip 3.mp4 0\nb.mp4\t1\n')
    dataset = build(tmp_path, ann_file='list.txt')
    assert labels(dataset) == [0, 1]
    assert dataset[ClipIndex(0, 0)]['path'].endswith('my first clip 3.mp4')
    with pytest.raises(ValueError, match=r'line 2.*label 1 is out of range, valid are 0\.\.0'):
        build(tmp_path, ann_file='list.txt', metainfo={'classes': ['only']})
    list_file.write_text('b.mp4 -1\n')
    with pytest.raises(ValueError, match='line 1.*label -1 is out of range'):
        build(tmp_path, ann_file='list.txt')
    list_file.write_text('b.mp4 1\nmy first clip 3.mp4\n')
    with pytest.raises(ValueError, match='label all clips or none'):
        build(tmp_path, ann_file='list.txt')
    list_file.write_text('my first clip 3.mp4\n')
    assert labels(build(tmp_path, ann_file='list.txt')) == [None]
    list_file.write_text('\n')
    with pytest.raises(ValueError, match='lists no clip'):
        build(tmp_path, ann_file='list.txt')


def test_folders(tmp_path, write_video):
    for name in ('walk/b.MP4', 'walk/a.mp4', 'jump/c.avi', 'walk/._a.mp4', 'walk/notes.txt'):
        write_video(tmp_path / 'videos' / 'temporary.avi')
        (tmp_path / 'videos' / name).parent.mkdir(exist_ok=True)
        (tmp_path / 'videos' / 'temporary.avi').rename(tmp_path / 'videos' / name)
    dataset = build(tmp_path)
    assert labels(dataset) == [0, 1, 1]
    assert dataset.metainfo['classes'] == ('jump', 'walk')
    fixed = build(tmp_path, metainfo={'classes': ['walk', 'run', 'jump']})
    assert labels(fixed) == [2, 0, 0]
    with pytest.raises(ValueError, match='not among the 1 given classes: jump'):
        build(tmp_path, metainfo={'classes': ['walk']})
    flat = build(tmp_path, 'videos/walk')
    assert labels(flat) == [None, None]
    assert 'classes' not in flat.metainfo
    write_video(tmp_path / 'videos' / 'loose.mp4')
    with pytest.raises(ValueError, match='both directly'):
        build(tmp_path)


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match='videos.*is not a folder'):
        build(tmp_path)
    (tmp_path / 'videos' / 'empty').mkdir(parents=True)
    with pytest.raises(ValueError, match='no videos in .*videos.*1 direct subfolders.*ann_file'):
        build(tmp_path)
    with pytest.raises(FileNotFoundError, match='ann_file not found.*nowhere.txt'):
        build(tmp_path, ann_file='nowhere.txt')
    (tmp_path / 'videos' / 'list.txt').write_text('a.mp4\nb.mp4\n')
    with pytest.raises(FileNotFoundError, match='none of the 2 files .*a.mp4'):
        build(tmp_path, ann_file='list.txt')


def test_images_are_clips_of_one_frame(tmp_path):
    (tmp_path / 'images').mkdir()
    cv2.imwrite(str(tmp_path / 'images' / 'a.png'), np.full((8, 8, 3), 7, np.uint8))
    dataset = build(tmp_path, 'images', clip_len=1)
    assert dataset[0]['frames'].shape == (1, 8, 8, 3)
    with pytest.raises(ValueError, match='images.*clip_len=1'):
        build(tmp_path, 'images', clip_len=5)
    (tmp_path / 'images' / 'list.txt').write_text('a.png\n')
    with pytest.raises(ValueError, match='clip_len must be 1 for images, got 5.*a.png'):
        build(tmp_path, 'images', ann_file='list.txt')


def first_frames(dataset, draws):
    """Which frame each clip starts at, by comparing with all frames."""
    whole = VideoDataset(data_root=dataset.data_root, clip_len=20, test_mode=True)[0]['frames'].astype(int)
    starts = []
    for idx in draws:
        clip = dataset[idx]['frames'].astype(int)
        distances = np.abs(whole - clip[0]).mean((1, 2, 3))
        starts.append(int(distances.argmin()))
        expected = whole[starts[-1] :: dataset.frame_interval][: len(clip)]
        assert np.abs(clip - expected).mean() < 2  # decord and OpenCV convert colors with different rounding
    return starts


@pytest.mark.parametrize('backend', ['decord', 'opencv'])
def test_random_start_in_training_middle_in_test(tmp_path, write_video, backend):
    write_video(tmp_path / 'videos' / 'a.avi', num_frames=20, fourcc='MJPG')
    kwargs = {'frame_interval': 3, 'clip_len': 5, 'backend': backend}
    starts = first_frames(build(tmp_path, **kwargs), [ClipIndex(0, key) for key in range(150)])
    assert set(starts) == set(range(8))  # 20 - (4 * 3 + 1) + 1
    assert first_frames(build(tmp_path, test_mode=True, **kwargs), [0, 0]) == [4, 4]


def test_bad_files_are_replaced(tmp_path, write_video, warnings_of):
    good = write_video(tmp_path / 'videos' / 'good.mp4', num_frames=20)
    folder = tmp_path / 'videos'
    (folder / 'empty.mp4').touch()
    (folder / 'garbage.avi').write_bytes(np.random.default_rng(0).bytes(4000))
    (folder / 'text.mp4').write_text('not a video\n' * 50)
    with open(good, 'rb') as file:
        data = file.read()
    (folder / 'truncated.mp4').write_bytes(data[: len(data) // 2])
    write_video(folder / 'one_frame.mp4', num_frames=1)
    dataset = build(tmp_path)
    bad = {'empty.mp4', 'garbage.avi', 'text.mp4', 'truncated.mp4', 'one_frame.mp4'}
    assert len(dataset) == 6
    for i in range(len(dataset)):
        sample = dataset[ClipIndex(i, draw_key=i)]
        assert sample['path'] == good
        requested = dataset.get_data_info(i)['path']
        assert sample.get('substituted_path') == (None if requested == good else requested)
    assert {path.rsplit('/', 1)[1] for path in dataset.skipped} == bad
    assert len(warnings_of) == 5
    assert all(any(name in text for text in warnings_of) for name in bad)
    assert '1 frames, but 5 at an interval of 1 need 5' in dataset.skipped[str(folder / 'one_frame.mp4')]
    (folder / 'good.mp4').unlink()
    with pytest.raises(RuntimeError, match='truncated.mp4'):
        dataset[0]


def test_a_listed_file_that_is_missing(tmp_path, write_video, warnings_of):
    write_video(tmp_path / 'videos' / 'a.mp4')
    (tmp_path / 'list.txt').write_text('gone.mp4\na.mp4\n')
    sample = build(tmp_path, ann_file=str(tmp_path / 'list.txt'), test_mode=True)[0]
    assert sample['substituted_path'].endswith('gone.mp4')
    assert 'no such file' in warnings_of[0]


def test_a_loop_of_links_does_not_stop_the_listing(tmp_path, write_video):
    write_video(tmp_path / 'good.avi', num_frames=3)
    (tmp_path / 'loop.avi').symlink_to(tmp_path / 'loop.avi')
    (tmp_path / 'folder').symlink_to(tmp_path / 'folder')
    assert len(VideoDataset(data_root=str(tmp_path), clip_len=1)) == 1


def test_a_list_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / 'list.txt').write_bytes('caf\u00e9.mp4'.encode('latin-1'))
    with pytest.raises(ValueError, match='list.txt is not UTF-8'):
        VideoDataset(data_root=str(tmp_path), clip_len=1, ann_file='list.txt')
